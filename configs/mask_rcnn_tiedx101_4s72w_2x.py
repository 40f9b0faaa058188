# Mask R-CNN with TiedResNeXt-101 (4 splits, width 72), 2x schedule: tied block convolution, AAAI 2021, Table A.2.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
# The closest fit to the printed size; the text's own settings (width 64) are in mask_rcnn_tiedx101_2x.py.
_base_ = './mask_rcnn_tiedr50_2x.py'
model = dict(backbone=dict(type='mmtied.TiedResNeXt', depth=101, base_width=72))
