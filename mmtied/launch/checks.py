"""Config checks that run before training starts: misspelled settings and types, and mismatched classes."""

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.dataset import ConcatDataset
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner
from torch import nn

from mmtied.cli import warn
from mmtied.compat import unwrap_model
from mmtied.evaluation.inputs.coco_json import read_json

#: Top-level settings that mmengine's Runner or the tools read from a config.
SETTINGS = frozenset({*inspect.signature(Runner.__init__).parameters, 'runner_type', 'strategy', 'find_unused_parameters',
                      'compile', 'custom_imports', 'sync_bn', 'model_wrapper_cfg', 'activation_checkpointing',
                      'efficient_conv_bn_eval', 'tta_model', 'tta_pipeline'}) - {'self', 'cfg'}
_NOT_REGISTERED = re.compile(r'(\S+) is not in the (?:\w+::)?([\w ]+?) registry')
#: Heads of mmdet's detectors that classify objects into the data set's classes.
_HEADS = ('bbox_head', 'mask_head')


def check_options(cfg: Config, keys: Iterable[str]) -> None:
    """Raise a ValueError if an option looks like a misspelled setting; warn if it is probably unused."""
    for key in keys:
        name = key.partition('.')[0]
        if name not in cfg and name not in SETTINGS:
            close = difflib.get_close_matches(name, {*cfg.keys(), *SETTINGS}, 1, .75)
            if close:
                raise ValueError(f'--cfg-options {key}: the config has no {name}; did you mean {key.replace(name, close[0], 1)}?')
            warn(f'--cfg-options {key}: the config has no {name}, so it is probably unused')


def warn_of_misspelled_settings(cfg: Config) -> None:
    """Warn of top-level dicts and lists in a config whose names resemble a setting of mmengine's Runner.

    It is only a warning, since a config may define such names for its own use.
    """
    for name, value in cfg.items():
        if name in SETTINGS or not isinstance(value, dict | list):
            continue
        close = difflib.get_close_matches(name, SETTINGS - {'tta_model', 'tta_pipeline'}, 1, .8)
        likely = close and (sorted(name) == sorted(close[0]) or difflib.SequenceMatcher(None, name, close[0]).ratio() > .85)
        if likely and abs(len(name) - len(close[0])) <= 2:
            warn(f'the config sets {name}, which mmengine does not read; did you mean {close[0]}?')


def check_layer_types(cfg: Config) -> None:
    """Raise a ValueError for a layer's type that is not registered; mmcv's own KeyError does not name it."""
    registered = dict(_registered('model', ''))
    known = {name.rpartition('.')[2] for name in registered} | set(registered)
    for key, settings in dicts_in(cfg.get('model'), 'model'):
        name = settings.get('type')
        if key.endswith(('.conv_cfg', '.norm_cfg', '.act_cfg')) and isinstance(name, str) and name not in known:
            raise ValueError(f'{key}: {describe_unknown_type(name, "model")}')


@contextmanager
def type_hints() -> Iterator[None]:
    """Turn mmengine's KeyError for an unregistered type into a ValueError with the nearest registered name."""
    try:
        yield
    except KeyError as error:
        found = _NOT_REGISTERED.search(str(error))
        if not found:
            raise
        raise ValueError(describe_unknown_type(*found.groups())) from error


def describe_unknown_type(name: str, registry_name: str) -> str:
    """Describe an unregistered type, with or without a scope, such as ``mmtied.TiedResnet`` or ``SDG``."""
    name = name.strip('\'"`')
    scope, _, bare = name.rpartition('.')
    names = dict(_registered(registry_name, scope))
    by_case = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(bare.lower(), by_case, 1)
    hint = (f'did you mean {names[by_case[close[0]]]}?' if close else
            'a type of your own needs custom_imports = dict(imports=[its module])')
    return f'{name} is not in the {registry_name} registry; {hint}'


def _registered(registry_name: str, scope: str) -> Iterator[tuple[str, str]]:
    """Yield the names in a registry and its children, each with the text to look it up by in a scope."""
    default = DefaultScope.get_current_instance()
    for registry in vars(mmengine.registry).values():
        if isinstance(registry, Registry) and registry.name == registry_name:
            for child in registry.children.values():
                bare = not scope and default is not None and default.scope_name == child.scope
                yield from ((name, name if bare else f'{child.scope}.{name}') for name in child.module_dict)
            yield from ((name, f'{scope}.{name}' if scope in registry.children else name) for name in registry.module_dict)


def dicts_in(settings: object, key: str) -> Iterator[tuple[str, dict]]:
    """Yield every dict in nested settings with its key, starting with the settings themselves.

    Example:
        >>> [key for key, _ in dicts_in({'neck': {}, 'heads': [{}, {}]}, 'model')]
        ['model', 'model.neck', 'model.heads.0', 'model.heads.1']
    """
    if isinstance(settings, dict):
        yield key, settings
        for name, value in settings.items():
            yield from dicts_in(value, f'{key}.{name}')
    elif isinstance(settings, list | tuple):
        for index, value in enumerate(settings):
            yield from dicts_in(value, f'{key}.{index}')


def leaf_datasets(dataset: dict | None, key: str = '') -> Iterator[tuple[str, dict]]:
    """Yield the settings of the data sets inside wrappers such as RepeatDataset and ConcatDataset, with their keys."""
    if not dataset:
        return
    if dataset.get('dataset'):
        yield from leaf_datasets(dataset['dataset'], f'{key}.dataset')
    elif dataset.get('datasets'):
        for index, wrapped in enumerate(dataset['datasets']):
            yield from leaf_datasets(wrapped, f'{key}.datasets.{index}')
    else:
        yield key, dataset


def check_classes(runner: Runner) -> None:
    """Raise a ValueError if classes, annotations and heads do not match.

    mmdet silently drops a class that is missing from the annotation file, and renumbers those after it.
    """
    for split in ('train', 'val'):
        loop = getattr(runner, f'_{split}_loop')
        for dataset in _leaves(getattr(getattr(loop, 'dataloader', None), 'dataset', None)):
            if hasattr(dataset, 'cat_ids') and len(dataset.cat_ids) < len(dataset.metainfo.get('classes') or ()):
                check_category_names(dict(metainfo=dataset.metainfo, ann_file=dataset.ann_file), f'{split}_dataloader.dataset')
    metainfo = getattr(runner.train_dataloader.dataset, 'metainfo', {})
    classes = len(metainfo.get('thing_classes') or metainfo.get('classes') or ())  # the classes with box labels
    model, is_classifier = unwrap_model(runner.model), runner.cfg.get('default_scope') == 'mmpretrain'
    if classes and not is_classifier:
        check_heads(model, classes)
    built = getattr(getattr(model, 'head', None), 'num_classes', None) if is_classifier else None
    if classes and built and built != classes:
        raise ValueError(f'the data have {classes} classes and model.head.num_classes is {built}; set it, and '
                         f'data_preprocessor.num_classes, to {classes}')


def check_category_names(dataset: Mapping, key: str) -> None:
    """Raise a ValueError if a class is missing from a dataset's local COCO file; `key` locates the dataset in the config."""
    classes, path = (dataset.get('metainfo') or {}).get('classes') or (), dataset.get('ann_file')
    path = str(Path(dataset.get('data_root') or '') / path) if isinstance(path, str) else ''
    if not path.endswith('.json') or '://' in path or not Path(path).is_file():
        return
    content = read_json(path)
    names = [category['name'] for category in content.get('categories', [])] if isinstance(content, dict) else []
    missing = [name for name in classes if name not in names]
    if missing and names:
        close = difflib.get_close_matches(missing[0], [name for name in names if name not in classes], 1)
        hint = f'did you mean {close[0]!r}? The file' if close else 'the file'
        shown = ', '.join(names[:30]) + (f' and {len(names) - 30} more' if len(names) > 30 else '')
        raise ValueError(f'{key}.metainfo.classes: {path} has no category {missing[0]!r}; {hint} has {shown}')


def check_heads(model: nn.Module, num_classes: int) -> None:
    """Raise a ValueError if a head of an mmdet detector has fewer classes than the training data."""
    for name, module in model.named_modules():
        built = getattr(module, 'num_classes', None)
        agnostic = getattr(module, 'class_agnostic', False)
        if set(_HEADS) & set(name.split('.')) and isinstance(built, int) and built < num_classes and not agnostic:
            raise ValueError(f'the training data have {num_classes} classes and model.{name}.num_classes is {built}; set it to '
                             f'{num_classes}, or choose {built} classes with train_dataloader.dataset.metainfo.classes')


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield the datasets inside wrappers."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _leaves(part)
    elif hasattr(dataset, 'dataset'):
        yield from _leaves(dataset.dataset)
    elif dataset is not None:
        yield dataset
