# EfficientNet-B0: the untied baseline of Table 3. mmpretrain's own config is for inference only. This one follows EfficientNet's
# paper (Tan & Le, ICML 2019), the source of the 77.1 in Table 3: RMSprop, learning rate 0.016 per 256 images, decayed by 0.97 every
# 2.4 epochs (here by as much, a little every epoch), BatchNorm momentum, AutoAugment and stochastic depth. Its code adds 350 epochs
# with 5 of warm-up, label smoothing and averaged weights. Two differences remain: mmpretrain's head lacks the dropout of
# 0.2 before the classifier, and PyTorch's RMSprop adds eps outside the square root, TensorFlow's inside.
_base_ = 'mmpretrain::efficientnet/efficientnet-b0_8xb32_in1k.py'
model = dict(
    backbone=dict(drop_path_rate=0.2, norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01)),
    head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))
train_dataloader = dict(
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='EfficientNetRandomCrop', scale=224),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='AutoAugment', policies='imagenet', hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
        dict(type='PackInputs'),
    ]))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='RMSprop', lr=0.016, alpha=0.9, momentum=0.9, eps=0.001, weight_decay=1e-5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='ExponentialLR', gamma=0.97**(1 / 2.4), by_epoch=True, begin=5, end=350),
]
train_cfg = dict(max_epochs=350)
custom_hooks = [dict(type='EMAHook', momentum=0.0001)]
