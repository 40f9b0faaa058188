# Mask R-CNN with TiedResNet-50 (4 splits, width 32), 2x schedule, 1333x800: tied block convolution, AAAI 2021, Table A.2.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = ['./mask_rcnn_r50_2x.py', './_base_/tied_backbone.py']
model = dict(backbone=_base_.tied_backbone)
