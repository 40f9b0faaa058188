# TiedSENet-101: tied block convolution, AAAI 2021, Table 1.
_base_ = './tiedse50_in1k.py'
model = dict(backbone=dict(depth=101))
