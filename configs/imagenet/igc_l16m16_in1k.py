# IGC-L16M16 + Ident., with projections in 16 groups as in the graph that the authors released: interleaved group convolutions,
# ICCV 2017, Table 6.
_base_ = './r18_95e_in1k.py'
model = dict(
    backbone=dict(
        type='mmtied.IGCNet',
        base_channels=256,
        conv_cfg=dict(type='IGC', num_primary=16),
        shortcut_groups='primary'),
    head=dict(in_channels=2048))
