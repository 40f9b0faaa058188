# ResNeXt-101-32x8d: the untied baseline of Table 1.
_base_ = './r50_in1k.py'
model = dict(backbone=dict(type='ResNeXt', depth=101, groups=32, width_per_group=8))
