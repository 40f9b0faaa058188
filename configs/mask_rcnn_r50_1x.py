# Mask R-CNN with ResNet-50, 1x schedule: the baseline of Table 4 (37.3 and 34.2); Table A.2 prints the 2x schedule.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
