# ResNeXt-101*, trained from scratch with the numbers of groups of G-ResNeXt-101, b = 32: groupable convolution, ICCV 2019,
# Table 6.
# Numbers of groups as in x50_learned_b32_in1k.py.
_base_ = './x50_learned_b32_in1k.py'
model = dict(
    backbone=dict(depth=101, groups=(16, ) * 3 + (32, ) * 4 + (64, ) * 23 + (32, ) * 3))
