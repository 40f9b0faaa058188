# G-ResNeXt-101 with b = 96: groupable convolution, ICCV 2019, Tables 3 and 6, Figure 5.
_base_ = './gx101_in1k.py'
custom_hooks = [dict(type='mmtied.GroupResourceHook', b=96), dict(type='mmtied.GroupHistoryHook')]
