# MobileNetV2 on ImageNet-1k, 300 epochs, SGD, learning rate 0.1 divided by 10 after 150, 225 and 285: the unshared
# baseline of Table 1 in deeply shared filter bases, NeurIPS 2021. Batch size 256, like its ResNets.
_base_ = 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'
optim_wrapper = dict(optimizer=dict(lr=0.1, weight_decay=0.00001))
param_scheduler = dict(_delete_=True, type='MultiStepLR', by_epoch=True, milestones=[150, 225, 285], gamma=0.1)
train_cfg = dict(max_epochs=300)
