# RegConv-W18 + Ident. of depth 50 on CIFAR-10: interleaved group convolutions, ICCV 2017, Table 5.
_base_ = './regconv_w18_d20_cifar10.py'
model = dict(backbone=dict(depth=50, identity=True))
