# Mask R-CNN with TiedResNet-50 (4 splits, width 32), 2x schedule, 1333x800: tied block convolution, AAAI 2021, Table A.2.
# It runs as it is, from scratch. With a trained backbone: tools/train.py CONFIG --backbone-checkpoint FILE
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py'

# Nothing is frozen and BatchNorm trains, across processes, because no ImageNet weights of tied networks have been published.
model = dict(backbone=dict(type='mmtied.TiedResNet', frozen_stages=-1, norm_eval=False, init_cfg=None))
sync_bn = 'torch'

val_evaluator = dict(type='mmtied.OcclusionCocoMetric')
test_evaluator = dict(type='mmtied.OcclusionCocoMetric')
custom_hooks = [dict(type='mmtied.OcclusionEvalHook')]
