# Mask R-CNN with IGC-L100M2 + Ident., 1x schedule: interleaved group convolutions, ICCV 2017 (backbone of Table 6).
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = ['./mask_rcnn_r18_1x.py', './_base_/igc_backbone.py']
model = dict(backbone=_base_.igc_backbone, neck=_base_.igc_neck)
