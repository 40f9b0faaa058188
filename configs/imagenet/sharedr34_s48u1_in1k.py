# ResNet-34-S48U1, two bases per stage: deeply shared filter bases, NeurIPS 2021, Table 1.
# For S32U1: tools/train.py CONFIG --cfg-options model.backbone.shared_elements=32
# The authors' weights: download ResNet34-S48U1 from https://github.com/ssregibility/Net_RL2#results-and-pretrained-models, then
#     tools/convert_backbone.py DOWNLOADED sharedr34_s48u1.pth --keep-head
#     tools/test.py CONFIG sharedr34_s48u1.pth
_base_ = './r34_150e_in1k.py'
model = dict(backbone=dict(type='mmtied.SharedResNet', num_bases=2, shared_elements=48, unique_elements=1))
custom_hooks = [dict(type='mmtied.OrthogonalityHook')]
