# MobileNetV2-Shared: deeply shared filter bases, NeurIPS 2021, Table 1.
# The authors' weights: download MobileNetV2-Shared from https://github.com/ssregibility/Net_RL2#results-and-pretrained-models, then
#     tools/convert_backbone.py DOWNLOADED sharedmobilenetv2.pth --keep-head
#     tools/test.py CONFIG sharedmobilenetv2.pth
_base_ = './mobilenetv2_300e_in1k.py'
model = dict(backbone=dict(type='mmtied.SharedMobileNetV2', num_bases=1, released=True))
custom_hooks = [dict(type='mmtied.OrthogonalityHook')]
