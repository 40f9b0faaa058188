# IGC-L24M2 of depth 20 on CIFAR-10: interleaved group convolutions, ICCV 2017, Tables 2 to 4.
_base_ = './regconv_w16_d20_cifar10.py'
model = dict(
    backbone=dict(base_channels=48, conv_cfg=dict(type='IGC', num_primary=24)), head=dict(in_channels=192))
