# ResNet-18 on ImageNet-1k for 95 epochs, learning rate divided by 10 after 30, 60 and 90, Nesterov momentum: the baseline of
# Table 6 in interleaved group convolutions, ICCV 2017, and the recipe of its networks.
_base_ = './r50_in1k.py'
model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
optim_wrapper = dict(optimizer=dict(nesterov=True))
train_cfg = dict(max_epochs=95)
