"""Look for a config's data before anything is built, and say what to put where."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

_COCO_ADVICE = ('Put COCO 2017 there (train2017/, val2017/, annotations/ from cocodataset.org), or try the demo data instead: '
                'python tools/make_occluded_shapes.py data/occluded_shapes, then configs/demo/mask_rcnn_tiedr50_demo.py')
_SHAPES_ADVICE = 'Make it: python tools/make_occluded_shapes.py data/occluded_shapes'


def check_data_files(cfg: Config, *splits: str) -> None:
    """Raise a one-line error for the first annotation file or folder that a config names and that is not there.

    Only local files are looked for; a path with ``://`` and data sets without paths are left to the data set itself.

    Args:
        cfg: A config.
        *splits: Which dataloaders to check: 'train', 'val', 'test'.

    Raises:
        ValueError: What is missing, and what to do about it.
    """
    for split in splits:
        for dataset in _leaf_datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
            for path in _local_paths(dataset):
                if not path.exists():
                    raise ValueError(f'{split} data: {path} not found. {_advice(path, split)}')


def _advice(path: Path, split: str) -> str:
    if 'occluded_shapes' in path.parts:
        return _SHAPES_ADVICE
    if 'coco' in str(path).lower():
        return _COCO_ADVICE
    evaluator = '' if split == 'train' else f' {split}_evaluator.ann_file=...'
    return f'Put the data there, or say where it is with --cfg-options {split}_dataloader.dataset.data_root=...{evaluator}'


def _leaf_datasets(dataset: dict | None) -> Iterator[dict]:
    """The data sets inside wrappers such as RepeatDataset, ClassBalancedDataset and ConcatDataset."""
    if not dataset:
        return
    inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets', [])
    for wrapped in inner:
        yield from _leaf_datasets(wrapped)
    if not inner:
        yield dataset


def _local_paths(dataset: dict) -> Iterator[Path]:
    """The annotation file, the image folders and the root of one data set."""
    root = dataset.get('data_root') or ''
    prefixes = dataset.get('data_prefix') or {}
    prefixes = [prefixes] if isinstance(prefixes, str) else list(prefixes.values())
    names = [dataset.get('ann_file') or '', *prefixes]
    for name in [name for name in names if isinstance(name, str) and name] or ['']:
        path = str(Path(root) / name) if '://' not in root + name else ''
        if path and path != '.':
            yield Path(path)
