# Mask R-CNN with TiedResNeXt-101 as the text describes it (4 splits, width 64), 2x schedule: tied block convolution, AAAI 2021.
# The paper prints no figures for it; Table A.2's row is closest to mask_rcnn_tiedx101_4s72w_2x.py.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = './mask_rcnn_tiedr50_2x.py'
model = dict(backbone=dict(type='mmtied.TiedResNeXt', depth=101))
