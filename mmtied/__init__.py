"""Tied block convolution for MMDetection, and detection accuracy as a function of occlusion.

Importing the package registers its layers, backbones, plugins, metric and hooks with mmengine (see `mmtied.registry`). Without
mmengine and mmcv the layers (`mmtied.layers`) and the evaluation's arithmetic still work; they need only torch.

A program that evaluates detections needs none of the models. It can set the environment variable ``MMTIED_REGISTER=0`` before
the import, which then registers nothing and imports neither torch, mmengine nor mmcv.
"""

import os

from .compat import is_installed
from .version import __version__

if os.environ.get('MMTIED_REGISTER') != '0' and is_installed('mmengine', 'mmcv'):
    from . import registry  # noqa: F401

__all__ = ['__version__']
