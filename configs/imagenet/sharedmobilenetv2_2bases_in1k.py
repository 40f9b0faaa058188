# MobileNetV2-Shared with two bases per group of blocks: deeply shared filter bases, NeurIPS 2021, Table 1.
# The authors' weights: download MobileNetV2-Shared++ from https://github.com/ssregibility/Net_RL2#results-and-pretrained-models, then
#     tools/convert_backbone.py DOWNLOADED sharedmobilenetv2_2bases.pth --keep-head
#     tools/test.py CONFIG sharedmobilenetv2_2bases.pth
_base_ = './sharedmobilenetv2_in1k.py'
model = dict(backbone=dict(num_bases=2))
