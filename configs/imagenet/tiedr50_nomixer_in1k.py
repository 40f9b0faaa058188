# TiedResNet-50 without a mixer (0.5 % less accurate, says the text): tied block convolution, AAAI 2021.
_base_ = './tiedr50_in1k.py'
model = dict(backbone=dict(mixer_fusion='none'))
