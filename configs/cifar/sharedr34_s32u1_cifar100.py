# ResNet-34-S32U1: deeply shared filter bases, NeurIPS 2021, Table 2.
_base_ = './r34_cifar100.py'
model = dict(backbone=dict(type='mmtied.SharedResNetCIFAR', shared_elements=32, unique_elements=1))
custom_hooks = [dict(type='mmtied.OrthogonalityHook')]
