# IGC-L24M2 of depth 8 on CIFAR-10: interleaved group convolutions, ICCV 2017, Tables 2 to 4.
_base_ = './igc_l24m2_d20_cifar10.py'
model = dict(backbone=dict(depth=8))
