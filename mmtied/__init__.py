"""mmtied: tied block convolution for MMDetection, and evaluation by occlusion.

Importing the package registers its layers, backbones, metric and hook with mmengine. Without mmengine and mmcv the layers
(``mmtied.layers``) and the evaluation's maths (``mmtied.evaluation.occlusion`` ...) still work; they need only torch.
"""

from .compat import is_installed
from .version import __version__

if is_installed('mmengine', 'mmcv'):
    from . import backbones, evaluation, plugins, registry, training  # noqa: F401

__all__ = ['__version__']
