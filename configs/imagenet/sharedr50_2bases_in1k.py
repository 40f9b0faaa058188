# ResNet-50-Shared with two bases per stage: deeply shared filter bases, NeurIPS 2021, Table 1.
# The authors' weights: download ResNet50-Shared++ from https://github.com/ssregibility/Net_RL2#results-and-pretrained-models, then
#     tools/convert_backbone.py DOWNLOADED sharedr50_2bases.pth --keep-head
#     tools/test.py CONFIG sharedr50_2bases.pth
_base_ = './sharedr50_in1k.py'
model = dict(backbone=dict(num_bases=2))
