# IGC-L450M2 of depth 20 on CIFAR-100: interleaved group convolutions, ICCV 2017, Table 7.
_base_ = './regconv_w16_d20_cifar100.py'
model = dict(
    backbone=dict(base_channels=900, conv_cfg=dict(type='IGC', num_primary=450)), head=dict(in_channels=3600))
