# IGC-L16M32 of depth 20 on SVHN: interleaved group convolutions, ICCV 2017, Table 7.
_base_ = './igc_l32m26_d20_svhn.py'
model = dict(backbone=dict(base_channels=512, conv_cfg=dict(num_primary=16)), head=dict(in_channels=2048))
