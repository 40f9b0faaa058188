# G-ResNeXt-101 with b = 48: groupable convolution, ICCV 2019, Table 3.
_base_ = './gx101_in1k.py'
custom_hooks = [dict(type='mmtied.GroupResourceHook', b=48), dict(type='mmtied.GroupHistoryHook')]
