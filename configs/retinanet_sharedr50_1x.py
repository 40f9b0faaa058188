# RetinaNet with ResNet-50-Shared, 1x schedule: deeply shared filter bases, NeurIPS 2021, Table 4.
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = ['./retinanet_r50_b8_1x.py', './_base_/shared_backbone.py']
model = dict(backbone=_base_.shared_backbone)
custom_hooks = [_base_.orthogonality]
