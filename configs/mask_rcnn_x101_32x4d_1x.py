# Mask R-CNN with ResNeXt-101-32x4d, 1x schedule: the baseline with a fixed number of groups.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_x101-32x4d_fpn_1x_coco.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
