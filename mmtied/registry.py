"""Registration of mmtied's classes with mmengine.

Classes go into mmengine's root registries, like mmcv's, so mmdet, mmpretrain and mmseg configs find their bare names once mmtied
is imported (``custom_imports=dict(imports=['mmtied'])``). The child registries below add the scope: mmengine imports this module
for ``type='mmtied.TiedResNet'``.
"""

from importlib import import_module

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

from .layers import IGC, TBC, TFC, TGC, DGConv, SumFusion
from .layers.blocks import refuse_fusion

#: Modules that register their classes on import.
_MODULES = ('backbones', 'plugins', 'evaluation.hook', 'evaluation.metric', 'related.groupable.backbones',
            'related.groupable.training', 'related.interleaved.backbones', 'related.interleaved.data',
            'related.shared_bases.backbones', 'related.shared_bases.densenet', 'related.shared_bases.mobilenet',
            'related.shared_bases.training', 'training.alone', 'training.distillation', 'training.resume')

for _name in _MODULES:
    import_module(f'mmtied.{_name}')

MODELS = Registry('model', parent=ROOT_MODELS, scope='mmtied')
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='mmtied')
TRANSFORMS = Registry('transform', parent=ROOT_TRANSFORMS, scope='mmtied')
METRICS = Registry('metric', parent=ROOT_METRICS, scope='mmtied')
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='mmtied')

# Layers are pure torch and cannot register themselves; ConvModule and build_conv_layer look them up by name.
for _layer in (TBC, TGC, TFC, IGC, SumFusion, DGConv):
    ROOT_MODELS.register_module(module=_layer)

refuse_fusion('mmcv.cnn.utils.fuse_conv_bn', '_fuse_conv_bn')
