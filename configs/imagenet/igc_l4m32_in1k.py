# IGC-L4M32 + Ident., with projections in four groups as in the graph that the authors released: interleaved group
# convolutions, ICCV 2017, Table 6.
_base_ = './r18_95e_in1k.py'
model = dict(
    backbone=dict(
        type='mmtied.IGCNet',
        base_channels=128,
        conv_cfg=dict(type='IGC', num_primary=4),
        shortcut_groups='primary'),
    head=dict(in_channels=1024))
