# ResNet-34-S16U1: deeply shared filter bases, NeurIPS 2021, Figure 3 (gradients), panel d, and Figure 4 (coefficients).
# Panel c, without normalization: --cfg-options model.backbone.basis_norm=False
# Panels a and b: sharedr34_s16u1_noorthoreg_cifar100.py. To draw them: mmtied bases gradients WORK_DIR ... --out FILE
_base_ = './sharedr34_s32u1_cifar100.py'
model = dict(backbone=dict(shared_elements=16))
custom_hooks = [dict(type='mmtied.OrthogonalityHook'), dict(type='mmtied.BasisGradientHook', interval=10)]
