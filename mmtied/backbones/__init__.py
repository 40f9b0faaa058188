"""Tied backbones for mmdet detectors and mmpretrain classifiers."""

from .tied_efficientnet import tied_efficientnet
from .tied_resnest import TiedResNeSt
from .tied_resnet import TiedResNet
from .tied_resnext import TiedResNeXt
from .tied_senet import TiedSENet, TiedSEResNet

__all__ = ['TiedResNeSt', 'TiedResNeXt', 'TiedResNet', 'TiedSENet', 'TiedSEResNet', 'tied_efficientnet']
