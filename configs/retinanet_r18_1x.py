# RetinaNet with ResNet-18, 1x schedule: the baseline of IGC-L100M2.
_base_ = './retinanet_r50_1x.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
