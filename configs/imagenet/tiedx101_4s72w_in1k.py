# The closest fit to TiedResNeXt-101-S as printed, 64.0M and 14.6G: tied block convolution, AAAI 2021, Tables 1 and A.2.
# The text's own settings are in tiedx101_in1k.py (width 64) and tiedx101s_in1k.py (S, width 36).
_base_ = './tiedx50_in1k.py'
model = dict(backbone=dict(depth=101, base_width=72))
