# A Mask R-CNN with TiedResNet-50 that learns occluded shapes from scratch in minutes on a laptop's CPU: `make demo`.
# Depth and structure are those of TiedResNet-50; images are 160x160, and backbone, neck and heads are thinner.
_base_ = '../mask_rcnn_tiedr50_2x.py'

model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[128, 256, 512, 1024], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=6),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=6)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(
        rpn=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(score_thr=0.02, max_per_img=50)))

# data made by tools/make_occluded_shapes.py
data_root = 'data/occluded_shapes/'
metainfo = dict(classes=('circle', 'square', 'triangle', 'star', 'ring', 'cross'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
