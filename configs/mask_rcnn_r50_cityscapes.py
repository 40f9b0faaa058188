# Mask R-CNN with ResNet-50 on Cityscapes (fine annotations), from ImageNet weights: the untied baseline of Table 2.
# The paper does not say which weights its detectors start from; mmdet's config starts from a COCO detector.
# Starts from ImageNet weights, which the tied configs lack; docs/model_zoo.md shows how to compare the two fairly.
_base_ = ['mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
model = dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='torchvision://resnet50')))
load_from = None
auto_scale_lr = dict(base_batch_size=8)  # learning rate 0.01 is for batch size 8
