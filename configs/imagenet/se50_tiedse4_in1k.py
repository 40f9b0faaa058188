# SE-ResNet-50 with TiedSE, B = 4: tied block convolution, AAAI 2021, Table 3.
_base_ = './se50_tiedse1_in1k.py'
model = dict(backbone=dict(se_blocks=4))
