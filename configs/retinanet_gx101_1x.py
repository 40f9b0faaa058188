# RetinaNet with G-ResNeXt-101, 1x schedule: groupable convolution, ICCV 2019 (prints no detectors).
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = './retinanet_gx50_1x.py'
model = dict(backbone=dict(depth=101))
