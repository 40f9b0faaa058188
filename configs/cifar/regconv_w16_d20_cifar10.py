# RegConv-W16 of depth 20 on CIFAR-10: a baseline of Tables 2 to 4 in interleaved group convolutions, ICCV 2017, and the common
# recipe: 400 epochs, SGD with Nesterov momentum, learning rate 0.1 divided by 10 after 200, 300 and 350, batch size 64
# (2 GPUs of 32). Other depths: --cfg-options model.backbone.depth=38.
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
model = dict(
    backbone=dict(_delete_=True, type='mmtied.IGCNetCIFAR', depth=20, base_channels=16, conv_cfg=dict(type='Conv2d')),
    head=dict(in_channels=64))
optim_wrapper = dict(optimizer=dict(nesterov=True))
param_scheduler = dict(milestones=[200, 300, 350])
train_cfg = dict(max_epochs=400)
train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(base_batch_size=64)
