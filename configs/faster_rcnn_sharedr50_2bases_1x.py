# Faster R-CNN with ResNet-50-Shared, two bases per stage, 1x schedule: deeply shared filter bases, NeurIPS 2021, Table 4.
_base_ = './faster_rcnn_sharedr50_1x.py'
model = dict(backbone=dict(num_bases=2))
