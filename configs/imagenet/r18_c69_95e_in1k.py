# ResNet-18 with 69 channels in its first stage: the wider baseline of Table 6 in interleaved group convolutions, ICCV 2017.
_base_ = './r18_95e_in1k.py'
model = dict(backbone=dict(stem_channels=69, base_channels=69), head=dict(in_channels=552))
