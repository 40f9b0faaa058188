# Mask R-CNN with HRNetV2p-W18, 2x schedule: a baseline of Figure 6, which prints no numbers.
# Starts from ImageNet weights, which the tied configs lack; docs/model_zoo.md shows how to compare the two fairly.
_base_ = ['mmdet::hrnet/mask-rcnn_hrnetv2p-w18-2x_coco.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
