# TiedResNeXt-101 (4 splits, width 64): tied block convolution, AAAI 2021; not printed.
_base_ = './tiedx50_in1k.py'
model = dict(backbone=dict(depth=101))
