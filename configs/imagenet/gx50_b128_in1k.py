# G-ResNeXt-50 with b = 128: groupable convolution, ICCV 2019, Table 3.
_base_ = './gx50_in1k.py'
custom_hooks = [dict(type='mmtied.GroupResourceHook', b=128), dict(type='mmtied.GroupHistoryHook')]
