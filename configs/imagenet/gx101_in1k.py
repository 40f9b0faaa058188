# G-ResNeXt-101 with b = 32: groupable convolution, ICCV 2019, Table 2.
_base_ = './gx50_in1k.py'
model = dict(backbone=dict(depth=101))
