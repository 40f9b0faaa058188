"""The other systems of the package in the model zoo: what their papers print beside what their networks count.

A system's rows are a `System` in a module of its own (``published_shared``, ...); `model_zoo.SYSTEMS` names them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from .complexity import Complexity, ImageNetClassifier, count_parameters, measure


@dataclass(frozen=True)
class SystemNetwork:
    """A classifier of a system, or one that it is compared with.

    Attributes:
        name: As the paper writes it.
        table: Where it is printed; empty where it is not.
        backbone: The settings that build its backbone.
        config: Its file in ``configs`` without ``.py``; empty where there is none.
        params: Parameters with the classifier in millions, printed.
        multiply_adds: In billions, printed.
        error: Top-1 error in percent, printed.
        channels: Channels of the backbone's last output.
        classes: Classes of the classifier.
        size: Height and width of the image in pixels.
        counts: What of the parameters is printed, and counted beside it: one of `COUNTS`.
        note: What a reader must know about the figures.
    """

    name: str
    table: str
    backbone: dict
    config: str = ''
    params: float | None = None
    multiply_adds: float | None = None
    error: float | None = None
    channels: int = field(default=2048, kw_only=True)
    classes: int = field(default=1000, kw_only=True)
    size: int = field(default=224, kw_only=True)
    counts: str = field(default='all', kw_only=True)
    note: str = field(default='', kw_only=True)


@dataclass(frozen=True)
class SystemDetector:
    """A detector of a system: its file in ``configs`` without ``.py``, and what is printed about it."""

    config: str
    detector: str
    backbone: str
    table: str
    params: float | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    note: str = field(default='', kw_only=True)


@dataclass(frozen=True)
class System:
    """A paper and its networks.

    Attributes:
        title: Heading on the page, and the collection's name in the metafile.
        paper: Title of the paper.
        url: Its address.
        text: What the page says before the tables.
        networks: Its classifiers.
        detectors: Its detectors.
    """

    title: str
    paper: str
    url: str
    text: str
    networks: tuple[SystemNetwork, ...]
    detectors: tuple[SystemDetector, ...] = ()


class SystemSizes(NamedTuple):
    """What a system's networks and detectors count, by name and by config; and the networks as their `counts` say."""

    networks: Mapping[str, Complexity]
    detectors: Mapping[str, int]
    as_printed: Mapping[str, int] = MappingProxyType({})


def _layers(module: nn.Module) -> int:
    """Parameters without those of normalisation layers."""
    norms = (_NormBase, nn.GroupNorm)
    return count_parameters(module) - sum(count_parameters(part) for part in module.modules() if isinstance(part, norms))


#: What papers count: everything, convolutions and classifier, the backbone, or the backbone's convolutions.
COUNTS = {
    'all': count_parameters,
    'layers': _layers,
    'backbone': lambda classifier: count_parameters(classifier.backbone),
    'backbone layers': lambda classifier: _layers(classifier.backbone),
}


def measure_system(system: System, configs: Path) -> SystemSizes:
    """Build and count every network and, from the configs, every detector with what is trained of it."""
    networks, as_printed = {}, {}
    for row in system.networks:
        classifier = ImageNetClassifier(MODELS.build(dict(row.backbone)), row.channels, row.classes)
        networks[row.name] = measure(classifier, row.size)
        as_printed[row.name] = COUNTS[row.counts](classifier)
    detectors = {row.config: _trained_parameters(configs / f'{row.config}.py') for row in system.detectors}
    return SystemSizes(networks, detectors, as_printed)


def _trained_parameters(config: Path) -> int:
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return count_parameters(MODELS.build(cfg.model), trained_only=True)
