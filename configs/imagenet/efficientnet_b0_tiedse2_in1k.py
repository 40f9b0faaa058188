# EfficientNet-B0 with TiedSE, B = 2: tied block convolution, AAAI 2021, Table 3.
_base_ = './efficientnet_b0_in1k.py'
model = dict(backbone=dict(type='mmtied.TiedEfficientNet', se_blocks=2))
