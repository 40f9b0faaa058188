# ResNeXt-50*, trained from scratch with the numbers of groups of G-ResNeXt-50, b = 96: groupable convolution, ICCV 2019,
# Table 6.
# Numbers of groups as in x50_learned_b32_in1k.py.
_base_ = './x50_learned_b32_in1k.py'
model = dict(backbone=dict(groups=(128, ) * 16))
