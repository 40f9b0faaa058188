# Cascade R-CNN with TiedResNet-101-S, 20-epoch schedule: tied block convolution, AAAI 2021, Table A.1.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = './cascade_rcnn_tiedr101_20e.py'
model = dict(backbone=dict(base_width=18))
