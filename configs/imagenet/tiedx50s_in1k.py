# TiedResNeXt-50-S (4 splits, width 36): tied block convolution, AAAI 2021; not printed.
_base_ = './tiedx50_in1k.py'
model = dict(backbone=dict(base_width=36))
