# IGC-L4M8 + Ident. of depth 50 on CIFAR-10, with projections where the shape changes as in the authors' code: interleaved group
# convolutions, ICCV 2017, Table 5. Other depths: --cfg-options model.backbone.depth=74 (or 98).
_base_ = './igc_l4m8_d20_cifar10.py'
model = dict(backbone=dict(depth=50, identity=True, shortcut_groups='primary'))
