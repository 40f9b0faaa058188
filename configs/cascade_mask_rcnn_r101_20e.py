# Cascade Mask R-CNN with ResNet-101, 20-epoch schedule: the untied baseline of Table A.2.
# Starts from ImageNet weights, which the tied configs lack; docs/model_zoo.md shows how to compare the two fairly.
_base_ = ['mmdet::cascade_rcnn/cascade-mask-rcnn_r101_fpn_20e_coco.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
