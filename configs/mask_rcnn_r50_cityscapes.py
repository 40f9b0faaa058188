# Mask R-CNN with ResNet-50 on Cityscapes, from mmdet's weights of COCO: the untied baseline of Table 2.
_base_ = ['mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py', './_base_/occlusion.py']
