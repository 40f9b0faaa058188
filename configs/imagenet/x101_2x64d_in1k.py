# ResNeXt-101-2x64d: a baseline of Table 4 in groupable convolution, ICCV 2019.
_base_ = './x101_32x4d_in1k.py'
model = dict(backbone=dict(groups=2, width_per_group=64))
