# TiedResNeSt-101: tied block convolution, AAAI 2021; not printed.
_base_ = './tiedresnest50s_in1k.py'
model = dict(backbone=dict(depth=101))
