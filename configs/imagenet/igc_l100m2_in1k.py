# IGC-L100M2 + Ident.: interleaved group convolutions, ICCV 2017, Table 6.
_base_ = './r18_95e_in1k.py'
model = dict(
    backbone=dict(type='mmtied.IGCNet', base_channels=200, conv_cfg=dict(type='IGC', num_secondary=2)),
    head=dict(in_channels=1600))
