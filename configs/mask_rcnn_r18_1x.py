# Mask R-CNN with ResNet-18, 1x schedule: the baseline of IGC-L100M2.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
