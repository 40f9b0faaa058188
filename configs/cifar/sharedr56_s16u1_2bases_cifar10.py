# ResNet-56-S16U1 with two bases per stage: deeply shared filter bases, NeurIPS 2021, Table 3.
_base_ = './sharedr56_s16u1_cifar10.py'
model = dict(backbone=dict(num_bases=2))
