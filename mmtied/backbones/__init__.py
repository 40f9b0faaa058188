"""Tied backbones, others that share filters, and one that learns groups, for mmdet detectors and mmpretrain classifiers."""

from .g_resnext import GResNeXt
from .igc_net import IGCNet, IGCNetCIFAR
from .shared_mobilenet import shared_mobilenet_v2
from .shared_resnet import SharedResNet, SharedResNetCIFAR
from .tied_efficientnet import tied_efficientnet
from .tied_resnest import TiedResNeSt
from .tied_resnet import TiedResNet
from .tied_resnext import TiedResNeXt
from .tied_senet import TiedSENet, TiedSEResNet

__all__ = ['GResNeXt', 'IGCNet', 'IGCNetCIFAR', 'SharedResNet', 'SharedResNetCIFAR', 'TiedResNeSt', 'TiedResNeXt', 'TiedResNet',
           'TiedSENet', 'TiedSEResNet', 'shared_mobilenet_v2', 'tied_efficientnet']
