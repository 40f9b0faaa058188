# ResNeSt-50-fast, which pools before its 3x3 convolutions: the untied baseline of Table 1.
_base_ = './r50_in1k.py'
model = dict(backbone=dict(type='mmtied.TiedResNeSt', entry_blocks=1, conv_blocks=1, pool_first=True))
