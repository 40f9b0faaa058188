# ResNet-56-S16U1: deeply shared filter bases, NeurIPS 2021, Table 3. As in the authors' code for CIFAR-10, the orthogonality term
# includes the elements that each layer adds. Their default batch size is 256; this recipe has 128.
_base_ = './r56_cifar10.py'
model = dict(backbone=dict(num_bases=1, shared_elements=16, unique_elements=1))
custom_hooks = [dict(type='mmtied.OrthogonalityHook', unique=True)]
