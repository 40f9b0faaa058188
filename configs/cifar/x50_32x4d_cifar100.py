# ResNeXt-50-32x4d on CIFAR-100: an unshared baseline of Table 2 in deeply shared filter bases, NeurIPS 2021, with ResNet-34's
# recipe.
_base_ = './r34_cifar100.py'
model = dict(
    backbone=dict(_delete_=True, type='mmtied.SharedResNeXtCIFAR', depth=50, num_bases=0, out_indices=(3, )),
    head=dict(in_channels=2048))
