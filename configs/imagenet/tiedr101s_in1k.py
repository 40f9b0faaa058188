# TiedResNet-101-S (4 splits, width 18): tied block convolution, AAAI 2021, Table 1.
_base_ = './tiedr50_in1k.py'
model = dict(backbone=dict(depth=101, base_width=18))
