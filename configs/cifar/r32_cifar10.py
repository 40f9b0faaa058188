# ResNet-32 (three stages of 16, 32 and 64 channels) on CIFAR-10: the unshared baseline of Table 3 in
# deeply shared filter bases, NeurIPS 2021.
_base_ = './r56_cifar10.py'
model = dict(backbone=dict(depth=32))
