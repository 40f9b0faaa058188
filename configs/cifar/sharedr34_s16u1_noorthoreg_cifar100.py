# ResNet-34-S16U1 without the orthogonality term: deeply shared filter bases, NeurIPS 2021, Figure 3, panel b, and Figure 4.
# Panel a, also without normalization: --cfg-options model.backbone.basis_norm=False
_base_ = './sharedr34_s16u1_cifar100.py'
custom_hooks = [dict(type='mmtied.BasisGradientHook', interval=10)]
