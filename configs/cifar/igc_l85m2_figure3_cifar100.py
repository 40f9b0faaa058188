# IGC-L85M2 of 8 layers without down-sampling on CIFAR-100: interleaved group convolutions, ICCV 2017, Figure 3 (b), about 17536
# weights in each block. Other points as in igc_l40m2_figure3_cifar100.py.
_base_ = './igc_l40m2_figure3_cifar100.py'
model = dict(backbone=dict(base_channels=170, conv_cfg=dict(num_primary=85)), head=dict(in_channels=170))
