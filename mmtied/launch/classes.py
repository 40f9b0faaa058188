"""Compare a Runner's classes with those of its data, before anything is trained."""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.dataset import ConcatDataset
from mmengine.runner import Runner
from torch import nn

from mmtied.compat import unwrap_model
from mmtied.evaluation.inputs.coco_json import read_json

#: Parts of mmdet's detectors that classify objects into the data's classes.
_HEADS = ('bbox_head', 'mask_head')


def check_classes(runner: Runner) -> None:
    """Raise a ValueError where classes, annotations and heads do not fit each other.

    mmdet drops a class that the annotation file does not have, and numbers those after it anew.

    Args:
        runner: After `prepare_training`.
    """
    for split in ('train', 'val'):
        loop = getattr(runner, f'_{split}_loop')
        for dataset in _leaves(getattr(getattr(loop, 'dataloader', None), 'dataset', None)):
            if hasattr(dataset, 'cat_ids') and len(dataset.cat_ids) < len(dataset.metainfo.get('classes') or ()):
                check_category_names(dict(metainfo=dataset.metainfo, ann_file=dataset.ann_file), f'{split}_dataloader.dataset')
    classes = _num_classes(runner.train_dataloader.dataset)
    if classes and runner.cfg.get('default_scope') == 'mmpretrain':
        _check_classifier(unwrap_model(runner.model), classes)
    elif classes:
        check_heads(unwrap_model(runner.model), classes)


def check_category_names(dataset: Mapping, key: str) -> None:
    """Raise a ValueError where one of a dataset's classes is not in its COCO annotation file.

    Args:
        dataset: Settings of a dataset, without wrappers; those without local COCO file and `metainfo` are not checked.
        key: Its key in the config.
    """
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
    """Raise a ValueError where a detector's head has fewer classes than the data's labels.

    Args:
        model: A detector of mmdet.
        num_classes: Number of classes of the training data.
    """
    for name, module in model.named_modules():
        built = getattr(module, 'num_classes', None)
        agnostic = getattr(module, 'class_agnostic', False)
        if set(_HEADS) & set(name.split('.')) and isinstance(built, int) and built < num_classes and not agnostic:
            raise ValueError(f'the training data have {num_classes} classes and model.{name}.num_classes is {built}; set it to '
                             f'{num_classes}, or choose {built} classes with train_dataloader.dataset.metainfo.classes')


def _check_classifier(model: nn.Module, num_classes: int) -> None:
    built = getattr(getattr(model, 'head', None), 'num_classes', None)
    if built and built != num_classes:
        raise ValueError(f'the data have {num_classes} classes and model.head.num_classes is {built}; set it, and '
                         f'data_preprocessor.num_classes, to {num_classes}')


def _num_classes(dataset: Any) -> int:
    """Return the number of classes that have labels for boxes; 0 where the dataset does not say."""
    metainfo = getattr(dataset, 'metainfo', {})
    return len(metainfo.get('thing_classes') or metainfo.get('classes') or ())


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield the datasets inside wrappers."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _leaves(part)
    elif hasattr(dataset, 'dataset'):
        yield from _leaves(dataset.dataset)
    elif dataset is not None:
        yield dataset
