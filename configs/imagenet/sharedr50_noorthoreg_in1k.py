# ResNet-50-Shared-NoOrthoReg, without the orthogonality term: deeply shared filter bases, NeurIPS 2021, Table 1.
_base_ = './sharedr50_in1k.py'
custom_hooks = []
