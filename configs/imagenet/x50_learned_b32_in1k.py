# ResNeXt-50*, trained from scratch with the group numbers of G-ResNeXt-50, b = 32: groupable convolution, ICCV 2019, Table 6.
# The group numbers are those of docs/model_zoo.md, because the paper shows the learned ones only in a figure. To use your own, the
# last ones in <work_dir>/groups/history.json: --cfg-options 'model.backbone.groups=[32,32,...]'
_base_ = './x50_32x4d_in1k.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmtied.GResNeXt',
        depth=50,
        groups=(32, ) * 3 + (32, ) * 4 + (64, ) * 6 + (32, ) * 3,
        out_indices=(3, )))
