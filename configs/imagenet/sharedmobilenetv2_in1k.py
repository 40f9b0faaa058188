# MobileNetV2-Shared: deeply shared filter bases, NeurIPS 2021, Table 1.
_base_ = './mobilenetv2_300e_in1k.py'
model = dict(backbone=dict(type='mmtied.SharedMobileNetV2'))
custom_hooks = [dict(type='mmtied.OrthogonalityHook')]
