# TiedResNeXt-101-S as the text describes it (4 splits, width 36): tied block convolution, AAAI 2021.
# Far smaller than the printed row of that name; tiedx101_4s72w_in1k.py comes closest to it.
_base_ = './tiedx50_in1k.py'
model = dict(backbone=dict(depth=101, base_width=36))
