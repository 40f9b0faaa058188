# TiedResNeSt-50-S: tied block convolution, AAAI 2021, Table 1.
_base_ = './r50_in1k.py'
model = dict(backbone=dict(type='mmtied.TiedResNeSt'))
