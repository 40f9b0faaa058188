# RetinaNet with ResNet-50, 2x schedule: the untied baseline of Table A.1.
# Starts from ImageNet weights, which the tied configs lack; docs/model_zoo.md shows how to compare the two fairly.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
