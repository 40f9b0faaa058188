"""Where mmtied's classes are registered.

Everything lives in mmengine's root registries, as mmcv's own classes do, so that mmdet, mmpretrain and mmseg configs all find
the bare names once mmtied is imported (``custom_imports=dict(imports=['mmtied'])``). The child registries below add the scope:
mmengine imports this module by itself when a config says ``type='mmtied.TiedResNet'``.
"""

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry

from .layers import IGC, TBC, TFC, TGC, DGConv, SumFusion

MODELS = Registry('model', parent=ROOT_MODELS, scope='mmtied')
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='mmtied')
METRICS = Registry('metric', parent=ROOT_METRICS, scope='mmtied')
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='mmtied')

# The layers are pure torch and cannot register themselves. ConvModule and mmcv's build_conv_layer find them by these names.
for _layer in (TBC, TGC, TFC, IGC, SumFusion, DGConv):
    ROOT_MODELS.register_module(module=_layer)
