"""Tied backbones for mmdet detectors and mmpretrain classifiers."""

from .tied_resnet import TiedResNet

__all__ = ['TiedResNet']
