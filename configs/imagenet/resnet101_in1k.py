# ResNet-101: the untied baseline of Table 1.
_base_ = './resnet50_in1k.py'
model = dict(backbone=dict(depth=101))
