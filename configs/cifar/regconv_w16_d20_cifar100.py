# RegConv-W16 of depth 20 on CIFAR-100: a baseline of Tables 2 to 4 in interleaved group convolutions, ICCV 2017, with
# CIFAR-10's recipe.
_base_ = 'mmpretrain::resnet/resnet50_8xb16_cifar100.py'
model = dict(
    backbone=dict(_delete_=True, type='mmtied.IGCNetCIFAR', depth=20, base_channels=16, conv_cfg=dict(type='Conv2d')),
    head=dict(in_channels=64))
optim_wrapper = dict(optimizer=dict(nesterov=True, weight_decay=0.0001))
param_scheduler = dict(milestones=[200, 300, 350], gamma=0.1)
train_cfg = dict(max_epochs=400)
train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(base_batch_size=64)
