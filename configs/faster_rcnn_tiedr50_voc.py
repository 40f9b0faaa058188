# Faster R-CNN with TiedResNet-50 on Pascal VOC 2007 and 2012: tied block convolution, AAAI 2021, Figure A.2.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = ['./faster_rcnn_r50_voc.py', './_base_/tied_backbone.py']
model = dict(backbone=_base_.tied_backbone)
