# Mask R-CNN with a thin TiedResNet-50 that learns occluded shapes from scratch in minutes on a laptop CPU: `make demo`.
# Depth and structure are TiedResNet-50's; backbone, neck and heads are thinner, and images are 160x160.
_base_ = '../mask_rcnn_tiedr50_2x.py'

num_classes = 6
norm_cfg = dict(type='BN', requires_grad=True)  # in the neck and the mask head too, for training from scratch
roi_layer = dict(sampling_ratio=1)  # mmcv's RoIAlign is the slowest part of a step on a CPU
model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, roi_layer=roi_layer),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=num_classes),
        mask_roi_extractor=dict(out_channels=64, roi_layer=roi_layer),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=num_classes, norm_cfg=norm_cfg,
                       loss_mask=dict(loss_weight=2.0))),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=150, max_per_img=60),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=50)))

# Data from tools/make_occluded_shapes.py data/occluded_shapes --images 500 --val-images 100
data_root = 'data/occluded_shapes/'
metainfo = dict(classes=('circle', 'square', 'triangle', 'star', 'ring', 'cross'))
load = dict(type='LoadImageFromFile')
annotate = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
resize = dict(type='Resize', scale=(160, 160), keep_ratio=True)
train_pipeline = [load, annotate, resize, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
test_pipeline = [load, resize, annotate,
                 dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline,
                 filter_cfg=dict(filter_empty_gt=True, min_size=8)))
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

# AdamW needs hundreds of steps from scratch, SGD thousands.
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs, T_max=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=25))
