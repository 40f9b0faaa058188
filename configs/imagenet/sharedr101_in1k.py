# ResNet-101-Shared: deeply shared filter bases, NeurIPS 2021, Table 1.
_base_ = './sharedr50_in1k.py'
model = dict(backbone=dict(depth=101))
