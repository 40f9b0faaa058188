# IGC-L4M8 of depth 20 on CIFAR-100: interleaved group convolutions, ICCV 2017, Tables 2 to 4.
_base_ = './regconv_w16_d20_cifar100.py'
model = dict(
    backbone=dict(base_channels=32, conv_cfg=dict(type='IGC', num_primary=4)), head=dict(in_channels=128))
