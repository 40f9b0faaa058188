# Mask R-CNN with G-ResNeXt-50, 1x schedule: groupable convolution, ICCV 2019 (prints no detectors).
# To start from an ImageNet backbone (tools/convert_backbone.py): tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', './_base_/occlusion.py', './_base_/groupable_backbone.py']
default_hooks = _base_.occlusion_hook
model = dict(backbone=_base_.groupable_backbone)
custom_hooks = _base_.group_hooks
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
