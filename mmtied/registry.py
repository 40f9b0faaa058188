"""Registration of mmtied's classes with mmengine.

Classes go into mmengine's root registries, as mmcv's do, so mmdet, mmpretrain and mmseg configs find the bare names once mmtied
is imported (``custom_imports=dict(imports=['mmtied'])``). The child registries below add the scope: mmengine imports this module
when a config says ``type='mmtied.TiedResNet'``.
"""

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

# These modules register their own classes when imported.
from . import backbones, plugins  # noqa: F401
from .evaluation import hook, metric  # noqa: F401
from .layers import TBC, TFC, TGC
from .layers.fusion import refuse_fusion
from .related.groupable import DGConv
from .related.groupable import backbones as groupable_backbones  # noqa: F401
from .related.groupable import training as groupable_training  # noqa: F401
from .related.interleaved import IGC, SumFusion
from .related.interleaved import backbones as interleaved_backbones  # noqa: F401
from .related.interleaved import data as interleaved_data  # noqa: F401
from .related.shared_bases import backbones as shared_backbones  # noqa: F401
from .related.shared_bases import densenet as shared_densenet  # noqa: F401
from .related.shared_bases import resnext as shared_resnext  # noqa: F401
from .related.shared_bases import training as shared_training  # noqa: F401
from .training import alone, distillation, resume  # noqa: F401

MODELS = Registry('model', parent=ROOT_MODELS, scope='mmtied')
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='mmtied')
TRANSFORMS = Registry('transform', parent=ROOT_TRANSFORMS, scope='mmtied')
METRICS = Registry('metric', parent=ROOT_METRICS, scope='mmtied')
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='mmtied')

# Layers are pure torch and cannot register themselves; ConvModule and build_conv_layer find them by these names.
for layer in (TBC, TGC, TFC, IGC, SumFusion, DGConv):
    ROOT_MODELS.register_module(module=layer)

refuse_fusion('mmcv.cnn.utils.fuse_conv_bn', '_fuse_conv_bn')
