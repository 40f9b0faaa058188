# IGC-L32M26 of depth 20 on CIFAR-10: interleaved group convolutions, ICCV 2017, Tables 2 and 7.
_base_ = './regconv_w16_d20_cifar10.py'
model = dict(
    backbone=dict(base_channels=832, conv_cfg=dict(type='IGC', num_primary=32)), head=dict(in_channels=3328))
