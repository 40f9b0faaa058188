# RegConv-W18 of depth 20 on CIFAR-100: a baseline of Tables 2 to 4 in interleaved group convolutions, ICCV 2017.
_base_ = './regconv_w16_d20_cifar100.py'
model = dict(backbone=dict(base_channels=18), head=dict(in_channels=72))
