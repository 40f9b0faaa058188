# ResNet-101 on ImageNet-1k, 150 epochs: the unshared baseline of Table 1 in deeply shared filter bases, NeurIPS 2021.
_base_ = './r50_150e_in1k.py'
model = dict(backbone=dict(depth=101))
