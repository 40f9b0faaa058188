# IGC-L100M2 + Ident.: interleaved group convolutions, ICCV 2017, Table 6. Stem of 100 channels and projections in as many groups
# as primary partitions, as in the graph that the authors released.
_base_ = './r18_95e_in1k.py'
model = dict(
    backbone=dict(
        type='mmtied.IGCNet',
        stem_channels=100,
        base_channels=200,
        conv_cfg=dict(type='IGC', num_secondary=2),
        shortcut_groups='primary'),
    head=dict(in_channels=1600))
