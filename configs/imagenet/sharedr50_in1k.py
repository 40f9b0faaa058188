# ResNet-50-Shared: deeply shared filter bases, NeurIPS 2021, Table 1.
_base_ = './r50_150e_in1k.py'
model = dict(backbone=dict(type='mmtied.SharedResNet'))
custom_hooks = [dict(type='mmtied.OrthogonalityHook')]
