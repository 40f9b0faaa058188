# IGC-L40M2 of 8 layers without down-sampling on CIFAR-100: interleaved group convolutions, ICCV 2017, Figure 3 (a), about 4672
# weights in each block. Any other point (L, M), here (28, 3), with L * M channels:
# --cfg-options model.backbone.base_channels=84 model.backbone.conv_cfg.num_primary=28 model.head.in_channels=84
_base_ = './regconv_w16_d20_cifar100.py'
model = dict(
    backbone=dict(
        num_stages=1, out_indices=(0, ), base_channels=80, conv_cfg=dict(type='IGC', num_primary=40)),
    head=dict(in_channels=80))
