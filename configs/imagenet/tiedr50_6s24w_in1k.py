# TiedResNet-50 of 6 splits, width 24: tied block convolution, AAAI 2021, Table 5.
_base_ = './tiedr50_in1k.py'
model = dict(backbone=dict(splits=6, base_width=24))
