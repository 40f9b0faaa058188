# ResNet-56-S16U1 without the orthogonality term: deeply shared filter bases, NeurIPS 2021, Table 3, the row with a star.
_base_ = './sharedr56_s16u1_cifar10.py'
custom_hooks = []
