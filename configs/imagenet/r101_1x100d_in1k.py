# ResNet-101 of width 100 (1x100d) instead of 64: a baseline of Table 4 in groupable convolution, ICCV 2019.
_base_ = './r200_1x64d_in1k.py'
model = dict(backbone=dict(depth=101, base_width=100))
