# Mask R-CNN with SE-ResNet-101 of mmpretrain and its ImageNet weights, 2x schedule: the untied baseline of Table A.2.
# Starts from ImageNet weights, which the tied configs lack; docs/model_zoo.md shows how to compare the two fairly.
_base_ = './mask_rcnn_r50_2x.py'
model = dict(
    backbone=dict(
        type='mmpretrain.SEResNet',
        depth=101,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmclassification/v0/se-resnet/'
                       'se-resnet101_batch256_imagenet_20200804-ba5b51d4.pth',
            prefix='backbone.')))
