# RetinaNet with ResNet-50-Shared, two bases per stage, 1x schedule: deeply shared filter bases, NeurIPS 2021, Table 4.
# ImageNet weights: the authors' ResNet50-Shared++, see _base_/shared_backbone.py for the download and the commands.
_base_ = './retinanet_sharedr50_1x.py'
model = dict(backbone=dict(num_bases=2))
