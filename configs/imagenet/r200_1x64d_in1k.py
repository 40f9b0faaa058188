# ResNet-200 (1x64d), deeper than ResNet-101: a baseline of Table 4 in groupable convolution, ICCV 2019. With the blocks of
# ResNet-101; the 200 layers of He et al. put normalization and activation before the convolutions.
_base_ = './x50_32x4d_in1k.py'
model = dict(
    backbone=dict(_delete_=True, type='mmtied.GResNeXt', depth=200, groups=1, base_width=64, out_indices=(3, )))
