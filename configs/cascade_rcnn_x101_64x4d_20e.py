# Cascade R-CNN with ResNeXt-101-64x4d, 20-epoch schedule: a baseline of Figure 6, which prints no numbers.
# Starts from ImageNet weights, which the tied configs lack; docs/model_zoo.md shows how to compare the two fairly.
_base_ = ['mmdet::cascade_rcnn/cascade-rcnn_x101_64x4d_fpn_20e_coco.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
