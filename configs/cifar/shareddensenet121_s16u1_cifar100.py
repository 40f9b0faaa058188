# DenseNet-121-S16U1: deeply shared filter bases, NeurIPS 2021, Table 2. As in the authors' code, the last dense block uses the basis
# of the block before it; in the paper's text each block has its own: --cfg-options model.backbone.last_basis=own.
_base_ = './densenet121_cifar100.py'
model = dict(backbone=dict(num_bases=1, shared_elements=16, unique_elements=1, last_basis='third'))
custom_hooks = [dict(type='mmtied.OrthogonalityHook')]
