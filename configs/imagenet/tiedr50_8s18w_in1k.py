# TiedResNet-50 of 8 splits, width 18: tied block convolution, AAAI 2021, Table 5.
_base_ = './tiedr50_in1k.py'
model = dict(backbone=dict(splits=8, base_width=18))
