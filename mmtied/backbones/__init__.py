"""Tied backbones for mmdet detectors and mmpretrain classifiers, and the backbones of `mmtied.related`."""

from mmtied.compat import forward_names

from .tied_efficientnet import tied_efficientnet
from .tied_resnest import TiedResNeSt
from .tied_resnet import TiedResNet, TiedResNeXt, TiedSENet, TiedSEResNet

__all__ = ['GResNeXt', 'IGCNet', 'IGCNetCIFAR', 'SharedDenseNetCIFAR', 'SharedResNet', 'SharedResNetCIFAR',  # noqa: F822
           'SharedResNeXtCIFAR', 'TiedResNeSt', 'TiedResNeXt', 'TiedResNet', 'TiedSENet', 'TiedSEResNet',
           'shared_mobilenet_v2', 'tied_efficientnet']

__getattr__, __dir__ = forward_names(__name__, {
    'groupable.backbones': ['GResNeXt'],
    'interleaved.backbones': ['IGCNet', 'IGCNetCIFAR'],
    'shared_bases.backbones': ['SharedResNet', 'SharedResNetCIFAR', 'SharedResNeXtCIFAR'],
    'shared_bases.densenet': ['SharedDenseNetCIFAR'],
    'shared_bases.mobilenet': ['shared_mobilenet_v2'],
})
