# ResNet-101: the untied baseline of Table 1.
_base_ = './r50_in1k.py'
model = dict(backbone=dict(depth=101))
