# TiedResNet-50 (4 splits, width 32): tied block convolution, AAAI 2021, Tables 1, 5 and 6.
_base_ = './r50_in1k.py'
model = dict(backbone=dict(type='mmtied.TiedResNet'))
