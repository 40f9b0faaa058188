# ResNet-50 on ImageNet-1k for 150 epochs, learning rate divided by 10 after 60, 100 and 140: the unshared baseline of
# Table 1 in deeply shared filter bases, NeurIPS 2021, and the recipe of its ResNets.
_base_ = './r50_in1k.py'
param_scheduler = dict(milestones=[60, 100, 140])
train_cfg = dict(max_epochs=150)
