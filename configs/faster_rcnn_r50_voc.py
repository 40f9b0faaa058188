# Faster R-CNN with ResNet-50 on Pascal VOC 2007 and 2012: the untied baseline of Figure A.2, which prints no numbers.
# Starts from ImageNet weights, which the tied configs lack; docs/model_zoo.md shows how to compare the two fairly.
# VOCMetric reports mAP at IoU 0.5; the hook adds COCO's AP by occlusion, ignoring difficult instances.
_base_ = ['mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
