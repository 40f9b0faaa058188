# Mask R-CNN with tied global context blocks (B = 4), 1x schedule: tied block convolution, AAAI 2021, Table 4.
_base_ = './mask_rcnn_r50_1x.py'
context_block = dict(type='mmtied.TiedGCB', ratio=1 / 4, num_blocks=4)
model = dict(
    backbone=dict(plugins=[
        dict(cfg=context_block, stages=(False, True, True, True), position='after_conv3')
    ]))
