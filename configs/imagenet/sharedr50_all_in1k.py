# ResNet-50-Shared-All, bases and coefficients shared, no weights released: deeply shared filter bases, NeurIPS 2021, Table 1.
_base_ = './sharedr50_in1k.py'
model = dict(backbone=dict(num_bases=3))
