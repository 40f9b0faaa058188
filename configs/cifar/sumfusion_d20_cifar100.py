# SumFusion of depth 20 on CIFAR-100: a baseline of Tables 2 and 4 in interleaved group convolutions, ICCV 2017.
_base_ = './regconv_w16_d20_cifar100.py'
model = dict(
    backbone=dict(base_channels=8, conv_cfg=dict(type='SumFusion', num_branches=4)), head=dict(in_channels=32))
