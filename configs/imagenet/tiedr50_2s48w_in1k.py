# TiedResNet-50 of 2 splits, width 48: tied block convolution, AAAI 2021, Table 5.
_base_ = './tiedr50_in1k.py'
model = dict(backbone=dict(splits=2, base_width=48))
