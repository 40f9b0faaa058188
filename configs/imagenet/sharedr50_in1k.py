# ResNet-50-Shared: deeply shared filter bases, NeurIPS 2021, Table 1.
# The authors' weights: download ResNet50-Shared from https://github.com/ssregibility/Net_RL2#results-and-pretrained-models, then
#     tools/convert_backbone.py DOWNLOADED sharedr50.pth --keep-head
#     tools/test.py CONFIG sharedr50.pth
# Weight decay is the paper's; the release's command has --weight_decay=4e-5 for this network.
_base_ = './r50_150e_in1k.py'
model = dict(backbone=dict(type='mmtied.SharedResNet', num_bases=1))
custom_hooks = [dict(type='mmtied.OrthogonalityHook')]
