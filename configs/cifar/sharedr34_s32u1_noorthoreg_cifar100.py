# ResNet-34-S32U1 without the orthogonality term: deeply shared filter bases, NeurIPS 2021, Table 2, the row with a star.
_base_ = './sharedr34_s32u1_cifar100.py'
custom_hooks = []
