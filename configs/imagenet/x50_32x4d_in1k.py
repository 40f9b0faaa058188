# ResNeXt-50-32x4d: the baseline of Table 2 in groupable convolution, ICCV 2019, and the recipe of its networks: 512 images a
# batch (16 GPUs of 32; for other numbers --auto-scale-lr) and a cosine schedule. The paper prints neither the learning rate nor
# the epochs: here 0.2, which is 0.1 for 256 images, and 100.
_base_ = 'mmpretrain::resnext/resnext50-32x4d_8xb32_in1k.py'
optim_wrapper = dict(optimizer=dict(lr=0.2))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=100, by_epoch=True, begin=0, end=100)
auto_scale_lr = dict(base_batch_size=512)
