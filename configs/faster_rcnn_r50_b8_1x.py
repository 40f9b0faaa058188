# Faster R-CNN with ResNet-50, 1x schedule, batch size 8, learning rate 0.01: the unshared baseline of Table 4 in
# deeply shared filter bases, NeurIPS 2021.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', './_base_/occlusion.py']
default_hooks = _base_.occlusion_hook
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
val_evaluator = _base_.occlusion_metric
test_evaluator = _base_.occlusion_metric
