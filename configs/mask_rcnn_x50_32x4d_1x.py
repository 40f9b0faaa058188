# Mask R-CNN with ResNeXt-50-32x4d, 1x schedule: the baseline with a fixed number of groups.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
model = dict(
    backbone=dict(type='ResNeXt', groups=32, base_width=4, init_cfg=dict(checkpoint='open-mmlab://resnext50_32x4d')))
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
