# ResNet-34-S16U1, whose gradients Figure 3 of deeply shared filter bases, NeurIPS 2021, shows, and whose coefficients Figure 4;
# this is panel d. Panel c, without normalization: --cfg-options model.backbone.basis_norm=False
# Panels a and b: sharedr34_s16u1_noorthoreg_cifar100.py. Then: mmtied bases gradients WORK_DIR ... --out FILE
_base_ = './sharedr34_s32u1_cifar100.py'
model = dict(backbone=dict(shared_elements=16))
custom_hooks = [dict(type='mmtied.OrthogonalityHook'), dict(type='mmtied.BasisGradientHook', interval=10)]
