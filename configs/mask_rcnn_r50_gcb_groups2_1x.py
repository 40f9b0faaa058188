# Mask R-CNN with global context blocks of group convolutions (G = 2), 1x schedule: the comparison of Table 4.
_base_ = './mask_rcnn_r50_1x.py'
context_block = dict(type='mmtied.TiedGCB', ratio=1 / 4, num_blocks=1, groups=2)
model = dict(
    backbone=dict(plugins=[
        dict(cfg=context_block, stages=(False, True, True, True), position='after_conv3')
    ]))
