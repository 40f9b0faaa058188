"""Load the trained networks that a figure compares, and run them on images."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import Tensor, nn

from mmtied.analysis.accuracy_over_size import Point
from mmtied.analysis.complexity import count_parameters
from mmtied.cli import check_sampling
from mmtied.evaluation.inputs.images import image_size, list_images, read_image
from mmtied.evaluation.reporting.runs import read_report
from mmtied.unpickling import load_checkpoint

from .checkpoints import build_trained
from .checks import leaf_datasets
from .config import load_config

#: Detectors with a plot in Figure 6, by mmdet's class.
_DETECTORS = {'RetinaNet': 'RetinaNet', 'MaskRCNN': 'Mask R-CNN', 'CascadeRCNN': 'Cascade R-CNN'}
_CLASSES = 1000


class Network(NamedTuple):
    """A trained model of mmdet or mmpretrain in evaluation mode, its name in figures, and its class names if known."""

    name: str
    cfg: Config
    model: nn.Module
    classes: tuple[str, ...]

    @property
    def is_detector(self) -> bool:
        """True for a detector, False for an image classifier."""
        return self.cfg.get('default_scope') != 'mmpretrain'

    @property
    def test_pipeline(self) -> list:
        """Steps of the config's test pipeline except loading annotations; empty if the config has none."""
        steps = _test_dataset(self.cfg).get('pipeline') or []
        return [step for step in steps if 'Annotations' not in str(step['type'])]

    @property
    def loads_images(self) -> bool:
        """True if the pipeline reads image files, in BGR; False if the data set supplies RGB images, as CIFAR and SVHN do."""
        return not self.test_pipeline or any('Load' in str(step['type']) for step in self.test_pipeline)

    def class_name(self, label: int) -> str:
        """Return the name of a label, or ``class 7`` if it is unknown."""
        return self.classes[label] if label < len(self.classes) else f'class {label}'


def load_networks(words: Sequence[str], names: Sequence[str] | None = None, options: Sequence[str] | None = None,
                  device: str | None = None) -> list[Network]:
    """Build models and load their weights.

    Args:
        words: CONFIG CHECKPOINT [CONFIG CHECKPOINT ...].
        names: Names in the figure. Default: those of the configs.
        options: KEY=VALUE words that override settings of every config.
        device: Default: a GPU if there is one.
    """
    if not words or len(words) % 2:
        raise ValueError(f'expected pairs of a config and a checkpoint, got {len(words)} arguments: {" ".join(words)}')
    pairs = list(zip(words[::2], words[1::2], strict=True))
    names = names_in_figure(names, [config for config, _ in pairs], 'networks')
    device = usable_device(device)
    networks = []
    for name, (config, checkpoint) in zip(names, pairs, strict=True):
        cfg = load_config(config, options)
        if cfg.get('data_preprocessor'):
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)  # as mmengine's Runner does
        model = build_trained(cfg, checkpoint).to(device).eval()
        for module in model.modules():
            if hasattr(module, 'with_cp'):
                module.with_cp = False  # torch.autograd.grad does not support recomputation
        networks.append(Network(name, cfg, model, _classes(cfg, checkpoint, model)))
    return networks


def usable_device(name: str | None = None) -> torch.device:
    """Return a device after checking that it works; without a name, a GPU if there is one."""
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError):  # AssertionError: PyTorch without CUDA
        gpus = [f'cuda:{number}' for number in range(torch.cuda.device_count())]
        raise ValueError(f'--device {name}: not usable here; expected one of {", ".join(["cpu", *gpus])}') from None
    return device


def names_in_figure(names: Sequence[str] | None, files: Sequence[str], kind: str) -> list[str]:
    """Return a name for each file, by default its stem; duplicates are numbered.

    Example:
        >>> names_in_figure(None, ['a.py', 'mmdet::b.py', 'c/a.py'], 'networks')
        ['a (1)', 'b', 'a (3)']
    """
    names = names or [Path(file.split('::')[-1]).stem for file in files]
    if len(names) != len(files):
        raise ValueError(f'--names: {len(names)} names for {len(files)} {kind}')
    return [f'{name} ({number})' if names.count(name) > 1 else name for number, name in enumerate(names, 1)]


def chosen_images(sources: Sequence[str | os.PathLike], count: int, seed: int = 0) -> list[Path]:
    """Return image files from files and folders, at most `count`, chosen at random."""
    check_sampling(count, seed)
    paths = []
    for source in map(Path, sources):
        paths += [source] if source.is_file() else list_images(source)
    if len(paths) > count:
        paths = [paths[number] for number in sorted(np.random.default_rng(seed).permutation(len(paths))[:count].tolist())]
    for path in paths:
        image_size(path)  # fail before networks run
    return paths


def image_batches(network: Network, paths: Sequence[str | os.PathLike], size: int) -> Iterator[Tensor]:
    """Yield batches of central squares, resized, and normalized by a network's data preprocessor."""
    from PIL import Image, ImageOps

    for start in range(0, len(paths), 4):
        squares = [np.asarray(ImageOps.fit(read_image(path), (size, size), Image.Resampling.BICUBIC))
                   for path in paths[start:start + 4]]
        squares = [square[:, :, ::-1] if network.loads_images else square for square in squares]  # BGR, as mmcv loads
        inputs = [torch.from_numpy(square.copy()).permute(2, 0, 1) for square in squares]
        yield network.model.data_preprocessor({'inputs': inputs}, False)['inputs']


class Prepared(NamedTuple):
    """A preprocessed image.

    Attributes:
        inputs: Normalized and padded, shape (1, 3, H, W).
        samples: The data sample, in a list.
        pixels: The inputs as an RGB picture without padding, shape (h, w, 3) uint8.
    """

    inputs: Tensor
    samples: list
    pixels: np.ndarray


def prepare(network: Network, path: str | os.PathLike) -> Prepared:
    """Read an image with the test pipeline of a network's config; OpenCV raises an error for an empty image."""
    if not network.test_pipeline:
        raise ValueError(f'{network.name}: the config has no test_dataloader.dataset.pipeline, which is needed to read images')
    read: dict[str, Any] = {'img_path': str(path), 'img_id': 0}
    image = np.array(read_image(path))
    if not network.loads_images:
        read.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
    with DefaultScope.overwrite_default_scope(network.cfg.get('default_scope')):
        made = Compose(network.test_pipeline)(read)
        data = network.model.data_preprocessor({'inputs': [made['inputs']], 'data_samples': [made['data_samples']]}, False)
    pixels = made['inputs'].numpy()
    pixels = pixels[::-1] if network.loads_images else pixels
    return Prepared(data['inputs'], data['data_samples'], pixels.transpose(1, 2, 0).copy())


def detect(network: Network, prepared: Prepared) -> Any:
    """Return a detector's instances, with boxes xyxy in pixels of the original image; differentiable if gradients are enabled."""
    with DefaultScope.overwrite_default_scope(network.cfg.get('default_scope')):
        return network.model.predict(prepared.inputs, prepared.samples, rescale=True)[0].pred_instances


def classify(network: Network, prepared: Prepared) -> Tensor:
    """Return a classifier's probabilities, shape (classes,)."""
    with torch.no_grad():
        return network.model(prepared.inputs, mode='tensor')[0].softmax(dim=0)


def class_label(network: Network, category: str) -> int:
    """Return a network's label of a category; raise a ValueError if it has none."""
    if category not in network.classes:
        known = f'has {", ".join(network.classes[:10])}' if network.classes else (
            'has no class names, neither in the checkpoint nor as metainfo of the config')
        raise ValueError(f'{network.name}: no class {category!r}; the network {known}')
    return network.classes.index(category)


def run_point(config: str, report: str | os.PathLike) -> Point:
    """Return a detector as a point of Figure 6, from its config and its report.json or the folder of it.

    Parameters are those of the backbone with an ImageNet classifier, as in the paper.
    """
    cfg = load_config(config)
    has_masks = bool((cfg.model.get('roi_head') or {}).get('mask_head'))
    detector = _DETECTORS.get(cfg.model.type.rpartition('.')[2])
    if detector is None or (detector == 'Cascade R-CNN' and has_masks):
        raise ValueError(f'{config}: {"Cascade Mask R-CNN" if detector else cfg.model.type} has no plot in Figure 6; expected '
                         f'{", ".join(_DETECTORS.values())}')
    path = Path(report)
    content = read_report(path / 'report.json' if path.is_dir() else path)
    values = {iou_type: (content.get(iou_type) or {}).get('all', {}).get('AP') for iou_type in ('bbox', 'segm')}
    if values['bbox'] is None:
        raise ValueError(f'{report}: has no box AP')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        backbone = MODELS.build(cfg.model.backbone)
    neck = cfg.model.neck[0] if isinstance(cfg.model.neck, list) else cfg.model.neck
    params = count_parameters(backbone) + (neck.in_channels[-1] + 1) * _CLASSES
    name = content.get('name') or Path(config.rpartition('::')[2]).stem
    return Point(detector, name, params / 1e6, *(None if value is None else 100 * value for value in values.values()))


def _test_dataset(cfg: Config) -> dict:
    """Return the settings of a config's test data set, without wrappers; empty if there is none."""
    return next((dataset for _, dataset in leaf_datasets((cfg.get('test_dataloader') or {}).get('dataset'))), {})


def _classes(cfg: Config, checkpoint: str, model: nn.Module) -> tuple[str, ...]:
    """Return the class names in a checkpoint or a config, or those of the data set if their number matches the model."""
    content = load_checkpoint(checkpoint)
    meta = _lower_case(content.get('meta') if isinstance(content, dict) else None)
    dataset = _test_dataset(cfg)
    for names in (_listed(_lower_case(meta.get('dataset_meta')).get('classes')), _listed(meta.get('classes')),  # mmengine, mmcv 1
                  (cfg.get('metainfo') or {}).get('classes'), (dataset.get('metainfo') or {}).get('classes')):
        if names:
            return (names, ) if isinstance(names, str) else tuple(map(str, names))
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(dataset['type']) if isinstance(dataset.get('type'), str) else dataset.get('type')
    names = getattr(kind, 'METAINFO', {}).get('classes') or ()
    return tuple(names) if len(names) == _num_classes(model) else ()


def _lower_case(values: object) -> dict:
    """Return a dict with lower-case keys; an empty dict for anything else."""
    return {str(key).lower(): value for key, value in dict.items(values)} if isinstance(values, dict) else {}


def _listed(names: object) -> object:
    """Return class names; None for anything else found in their place."""
    listed = [names] if isinstance(names, str) else names
    return names if isinstance(listed, list | tuple) and all(isinstance(name, str | int) for name in listed) else None


def _num_classes(model: nn.Module) -> int | None:
    """Return a model's number of classes, or None if unknown."""
    head = getattr(getattr(model, 'roi_head', model), 'bbox_head', getattr(model, 'head', None))
    return getattr(head[-1] if isinstance(head, nn.ModuleList) else head, 'num_classes', None)
