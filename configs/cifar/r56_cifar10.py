# ResNet-56 (stages of 16, 32 and 64 channels) on CIFAR-10, with the recipe of ResNet-34 on CIFAR-100: the unshared baseline of
# Table 3 in deeply shared filter bases, NeurIPS 2021.
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
model = dict(
    backbone=dict(_delete_=True, type='mmtied.SharedResNetCIFAR', depth=56, num_bases=0), head=dict(in_channels=64))
optim_wrapper = dict(optimizer=dict(weight_decay=0.0005))
param_scheduler = dict(milestones=[150, 225])
train_cfg = dict(max_epochs=300)
