# Mask R-CNN with TiedSENet-101-S, 2x schedule: tied block convolution, AAAI 2021, Table A.2.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = './mask_rcnn_tiedse101_2x.py'
model = dict(backbone=dict(base_width=18))
