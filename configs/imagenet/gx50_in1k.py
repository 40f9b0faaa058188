# G-ResNeXt-50 with b = 32: groupable convolution, ICCV 2019, Tables 2, 3 and 6. For another bound:
# tools/train.py CONFIG --cfg-options custom_hooks.0.b=80
_base_ = './x50_32x4d_in1k.py'
model = dict(backbone=dict(_delete_=True, type='mmtied.GResNeXt', depth=50, out_indices=(3, )))
custom_hooks = [dict(type='mmtied.GroupResourceHook', b=32), dict(type='mmtied.GroupHistoryHook')]
