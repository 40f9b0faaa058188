# ResNet-50-Shared with two bases per stage: deeply shared filter bases, NeurIPS 2021, Table 1.
_base_ = './sharedr50_in1k.py'
model = dict(backbone=dict(num_bases=2))
