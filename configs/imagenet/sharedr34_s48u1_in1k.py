# ResNet-34-S48U1, whose printed size fits two bases per stage: deeply shared filter bases, NeurIPS 2021, Table 1.
# For S32U1: tools/train.py CONFIG --cfg-options model.backbone.shared_elements=32
_base_ = './r34_150e_in1k.py'
model = dict(backbone=dict(type='mmtied.SharedResNet', num_bases=2, shared_elements=48, unique_elements=1))
custom_hooks = [dict(type='mmtied.OrthogonalityHook')]
