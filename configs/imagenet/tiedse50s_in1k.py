# TiedSENet-50-S: tied block convolution, AAAI 2021; printed at depth 101 only.
_base_ = './tiedse50_in1k.py'
model = dict(backbone=dict(base_width=18))
