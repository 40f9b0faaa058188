# ResNet-34 on CIFAR-100 for 300 epochs, SGD, learning rate 0.1 divided by 10 after 150 and 225, weight decay 5e-4,
# batch size 128: the unshared baseline of Table 2 in deeply shared filter bases, NeurIPS 2021.
_base_ = 'mmpretrain::resnet/resnet50_8xb16_cifar100.py'
model = dict(backbone=dict(depth=34), head=dict(in_channels=512))
optim_wrapper = dict(optimizer=dict(weight_decay=0.0005))
param_scheduler = dict(milestones=[150, 225], gamma=0.1)
train_cfg = dict(max_epochs=300)
