# Cascade R-CNN with TiedResNet-101, 20 epochs schedule: tied block convolution, AAAI 2021, Table A.1.
# An ImageNet backbone made by tools/convert_backbone.py goes into: tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = ['./cascade_rcnn_r101_20e.py', './_base_/tied_backbone.py']
model = dict(backbone=_base_.tied_backbone)
