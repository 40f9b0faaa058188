# G-ResNeXt-101 with b = 128: groupable convolution, ICCV 2019, Table 3.
_base_ = './gx101_in1k.py'
custom_hooks = [dict(type='mmtied.GroupResourceHook', b=128), dict(type='mmtied.GroupHistoryHook')]
