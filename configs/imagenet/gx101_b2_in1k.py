# G-ResNeXt-101 with b = 2, twice the complexity of ResNet-101: groupable convolution, ICCV 2019, Table 4.
_base_ = './gx101_in1k.py'
custom_hooks = [dict(type='mmtied.GroupResourceHook', b=2), dict(type='mmtied.GroupHistoryHook')]
