# IGC-L16M32 of depth 20 on CIFAR-10: interleaved group convolutions, ICCV 2017, Table 7.
_base_ = './regconv_w16_d20_cifar10.py'
model = dict(
    backbone=dict(base_channels=512, conv_cfg=dict(type='IGC', num_primary=16)), head=dict(in_channels=2048))
