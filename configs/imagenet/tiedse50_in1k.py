# TiedSENet-50: tied block convolution, AAAI 2021; printed at depth 101 only.
_base_ = './r50_in1k.py'
model = dict(backbone=dict(type='mmtied.TiedSENet'))
