# TiedResNeXt-101-S as the text describes it (4 splits, width 36): tied block convolution, AAAI 2021.
_base_ = './tiedx50_in1k.py'
model = dict(backbone=dict(depth=101, base_width=36))
