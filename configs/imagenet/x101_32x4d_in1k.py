# ResNeXt-101-32x4d: the baseline of Table 2 in groupable convolution, ICCV 2019.
_base_ = './x50_32x4d_in1k.py'
model = dict(backbone=dict(depth=101))
