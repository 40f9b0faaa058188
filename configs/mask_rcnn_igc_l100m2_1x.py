# Mask R-CNN with IGC-L100M2 + Ident., 1x schedule: interleaved group convolutions, ICCV 2017, whose Table 6 has the backbone.
# An ImageNet backbone made by tools/convert_backbone.py goes into: tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = ['./mask_rcnn_r18_1x.py', './_base_/igc_backbone.py']
model = dict(backbone=_base_.igc_backbone, neck=_base_.igc_neck)
