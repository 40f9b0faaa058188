# TiedResNet-50 whose mixer concatenates the splits: tied block convolution, AAAI 2021, Table 6.
_base_ = './tiedr50_in1k.py'
model = dict(backbone=dict(mixer_fusion='concat'))
