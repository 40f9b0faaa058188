# Mask R-CNN with global context blocks in stages c3 to c5, 1x schedule: the untied module of Table 4 (its baseline is the 1x one).
_base_ = './mask_rcnn_r50_1x.py'
context_block = dict(type='ContextBlock', ratio=1 / 4)
model = dict(
    backbone=dict(plugins=[
        dict(cfg=context_block, stages=(False, True, True, True), position='after_conv3')
    ]))
