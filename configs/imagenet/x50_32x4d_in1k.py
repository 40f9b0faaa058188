# ResNeXt-50-32x4d: the baseline of Table 2 in groupable convolution, ICCV 2019, and the recipe of its networks: batch
# size 512 (16 GPUs of 32; for other numbers --auto-scale-lr) and a cosine schedule. The paper prints neither learning rate nor
# epochs; we use 0.2 (0.1 per 256 images) and 100.
_base_ = 'mmpretrain::resnext/resnext50-32x4d_8xb32_in1k.py'
optim_wrapper = dict(optimizer=dict(lr=0.2))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=100, by_epoch=True, begin=0, end=100)
auto_scale_lr = dict(base_batch_size=512)
