# ResNeXt-50-S64U4: deeply shared filter bases, NeurIPS 2021, Table 2.
_base_ = './x50_32x4d_cifar100.py'
model = dict(backbone=dict(num_bases=1, shared_elements=64, unique_elements=4))
custom_hooks = [dict(type='mmtied.OrthogonalityHook')]
