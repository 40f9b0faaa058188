# TiedResNeXt-101 (4 splits, width 64): tied block convolution, AAAI 2021; not printed.
# For a detector: configs/mask_rcnn_tiedx101_2x.py. The nearest found to the printed size: tiedx101_4s72w_in1k.py.
_base_ = './tiedx50_in1k.py'
model = dict(backbone=dict(depth=101))
