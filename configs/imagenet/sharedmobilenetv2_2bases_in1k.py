# MobileNetV2-Shared with two bases per group of blocks: deeply shared filter bases, NeurIPS 2021, Table 1.
_base_ = './sharedmobilenetv2_in1k.py'
model = dict(backbone=dict(num_bases=2))
