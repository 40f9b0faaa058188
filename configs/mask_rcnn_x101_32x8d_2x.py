# Mask R-CNN with ResNeXt-101-32x8d, 2x schedule: the untied baseline of Table A.2, with the preprocessing of its weights.
# Starts from ImageNet weights, which the tied configs lack; docs/model_zoo.md shows how to compare the two fairly.
# Those weights keep BatchNorm's scale and shift fixed (requires_grad=False); the tied network trains them.
_base_ = './mask_rcnn_r50_2x.py'
model = dict(
    data_preprocessor=dict(mean=[103.530, 116.280, 123.675], std=[57.375, 57.120, 58.395], bgr_to_rgb=False),
    backbone=dict(
        type='ResNeXt',
        depth=101,
        groups=32,
        base_width=8,
        norm_cfg=dict(requires_grad=False),
        init_cfg=dict(checkpoint='open-mmlab://detectron2/resnext101_32x8d')))
