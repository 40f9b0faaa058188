# ResNet-101-Shared: deeply shared filter bases, NeurIPS 2021, Table 1.
# The authors' weights: download ResNet101-Shared from https://github.com/ssregibility/Net_RL2#results-and-pretrained-models, then
#     tools/convert_backbone.py DOWNLOADED sharedr101.pth --keep-head
#     tools/test.py CONFIG sharedr101.pth
_base_ = './sharedr50_in1k.py'
model = dict(backbone=dict(depth=101))
