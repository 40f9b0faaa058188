# EfficientNet-B0: the untied baseline of Table 3.
_base_ = 'mmpretrain::efficientnet/efficientnet-b0_8xb32_in1k.py'
