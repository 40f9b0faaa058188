# RetinaNet with TiedResNet-101-S, 2x schedule: tied block convolution, AAAI 2021, Table A.1.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = './retinanet_tiedr50_2x.py'
model = dict(backbone=dict(depth=101, base_width=18))
