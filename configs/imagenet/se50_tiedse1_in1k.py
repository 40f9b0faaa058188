# SE-ResNet-50, i.e. TiedSE with B = 1: tied block convolution, AAAI 2021, Table 3.
_base_ = './r50_in1k.py'
model = dict(backbone=dict(type='mmtied.TiedSEResNet', se_blocks=1))
