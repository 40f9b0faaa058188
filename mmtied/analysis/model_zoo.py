"""The model zoo: every network of the paper with its printed and its counted size, as a page; `metafile` has OpenMMLab's.

Both texts are generated from `published` and from the networks themselves, so neither can go stale unnoticed. A config is named
where its file exists.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from mmengine.registry import MODELS

from .complexity import Complexity, ImageNetClassifier, count_parameters, measure
from .published import ATTENTION, DETECTORS, NETWORKS, Attention, Detector, Network
from .published_groupable import GROUPABLE_CONVOLUTION
from .published_igc import INTERLEAVED_GROUP_CONVOLUTION
from .published_shared import SHARED_FILTER_BASES
from .systems import System, SystemSizes, measure_system

#: The other systems, in the order of the page.
SYSTEMS = (SHARED_FILTER_BASES, INTERLEAVED_GROUP_CONVOLUTION, GROUPABLE_CONVOLUTION)

#: What every accuracy here is.
PRINTED = 'printed in the paper, not trained here'
#: Layers that `Attention` counts.
_ATTENTION_LAYERS = ('SELayer', 'TiedSE', 'ContextBlock', 'TiedGCB')
_INTRODUCTION = f"""# Model zoo

Written by `python tools/model_table.py` from the networks themselves and from the figures printed in the paper
([arXiv 2009.12021](https://arxiv.org/abs/2009.12021)); a test compares it with both. Every accuracy on this page is
{PRINTED}, and there are no weights to download. The paper prints no layer table: the structures
are fitted to its sizes, as [The tied bottleneck](tied_resnet.md) tells.

## ImageNet classifiers

Parameters with the classifier of 1000 classes, and multiply-adds of convolutions and fully connected layers for one image of
224 x 224, which mmengine's counter and torch's FlopCounterMode give alike. The paper's counter adds a little: it prints 4.2G and
7.9G for ResNet-50 and -101, where these layers have 4.09G and 7.80G. Differences are in percent of the printed figure.
"""
_ATTENTION_TEXT = """## Attention modules

Parameters of the modules alone. TiedSE and SE have reduction 16 (EfficientNet-B0 its own widths), GCB and TiedGCB stand in stages
c3 to c5 with ratio 1/4. A block number B divides the weights by B * B. Where B = 4 does not divide the widths between
EfficientNet-B0's layers they are rounded (6 to 8, 10 to 12).
"""
_DETECTOR_TEXT = """## Detectors

Backbone parameters are those of the classifier above, as the paper counts them; with attention modules, the sum. AP on COCO
val2017 or Cityscapes val. Each file is for `python tools/train.py`.

As shipped, an untied baseline starts from ImageNet weights with stem, first stage and BatchNorm frozen, and a tied detector from
scratch with nothing frozen. Comparing those two says little about tying. To run a pair like for like, do one of these:

- Both from ImageNet weights: train the backbone with its config in `configs/imagenet`, convert it with
  `tools/convert_backbone.py`, and give the tied detector `--backbone-checkpoint FILE`, which freezes what the baseline freezes.
  (`sync_bn` stays in the tied config, without effect while BatchNorm only evaluates.)
- Both from scratch: run the baseline with
  `--cfg-options model.backbone.init_cfg=None model.backbone.frozen_stages=-1 model.backbone.norm_eval=False sync_bn=torch`
  (and `model.backbone.norm_cfg.requires_grad=True` for ResNeXt-101-32x8d).
"""


def measure_networks(networks: Iterable[Network] = NETWORKS) -> dict[str, Complexity]:
    """Build and measure every classifier; a minute or two on one core."""
    return {network.name: measure(ImageNetClassifier(MODELS.build(dict(network.backbone)), network.channels))
            for network in networks}


def measure_attention(rows: Iterable[Attention] = ATTENTION) -> dict[tuple[str, str], int]:
    """Parameters of the attention modules, by network and module."""
    return {(row.network, row.module): sum(count_parameters(layer) for layer in MODELS.build(dict(row.backbone)).modules()
                                           if type(layer).__name__ in _ATTENTION_LAYERS) for row in rows}


def measure_systems(configs: Path, systems: Iterable[System] = SYSTEMS) -> dict[str, SystemSizes]:
    """What the other systems' networks count, by the system's title; a minute or two on one core."""
    return {system.title: measure_system(system, configs) for system in systems}


def render_page(sizes: Mapping[str, Complexity], attention: Mapping[tuple[str, str], int], configs: Path,
                systems: Mapping[str, SystemSizes] | None = None) -> str:
    """The page docs/model_zoo.md.

    Args:
        sizes: From `measure_networks`.
        attention: From `measure_attention`.
        configs: The folder of configs.
        systems: From `measure_systems`; one that is missing is left out.
    """
    notes = _Notes()
    networks = _table(
        ('network', 'table', 'params printed', 'computed', 'difference', 'multiply-adds printed', 'computed', 'difference',
         f'top-1 {PRINTED}', 'config'), (
            (n.name + notes.mark(n.note), n.tables or '-', *_compare(n.params, sizes[n.name].parameters / 1e6, 'M'),
             *_compare(n.multiply_adds, sizes[n.name].multiply_adds / 1e9, 'G'), _number(n.top1),
             _link(configs, f'imagenet/{n.config}')) for n in NETWORKS))
    modules = _table(('network', 'module', 'table', 'params printed', 'computed', 'difference', 'config'), (
        (a.network, a.module + notes.mark(a.note), a.table, *_compare(a.params, attention[a.network, a.module] / 1e6, 'M'),
         _link(configs, a.config)) for a in ATTENTION))
    detectors = _table(
        ('detector', 'backbone', 'data', 'schedule', 'table', 'backbone params', f'box AP {PRINTED}', f'mask AP {PRINTED}',
         'config'), (
            (d.detector, d.backbone + notes.mark(d.note), d.dataset, d.schedule or '-', d.table or '-',
             f'{backbone_millions(d, sizes, attention):.2f}M', _number(d.box_ap), _number(d.mask_ap), _link(configs, d.config))
            for d in DETECTORS if config_file(configs, d.config).is_file()))
    others = [_render_system(system, systems[system.title], configs, notes) for system in SYSTEMS
              if system.title in (systems or {})]
    return '\n'.join((_INTRODUCTION, networks, _ATTENTION_TEXT, modules, _DETECTOR_TEXT, detectors, *others, notes.text()))


def _render_system(system: System, sizes: SystemSizes, configs: Path, notes: '_Notes') -> str:
    """A system's section: its text, its classifiers and its detectors."""
    networks = _table(
        ('network', 'table', 'params printed', 'computed', 'difference', 'multiply-adds printed', 'computed', 'difference',
         f'top-1 error {PRINTED}', 'config'), (
            (n.name + notes.mark(n.note), n.table or '-',
             *_compare(n.params, sizes.as_printed.get(n.name, sizes.networks[n.name].parameters) / 1e6, 'M'),
             *_compare(n.multiply_adds, sizes.networks[n.name].multiply_adds / 1e9, 'G'), _number(n.error),
             _link(configs, n.config)) for n in system.networks))
    detectors = _table(
        ('detector', 'backbone', 'table', 'trained params printed', 'computed', 'difference', f'box AP {PRINTED}',
         f'mask AP {PRINTED}', 'config'), (
            (d.detector, d.backbone + notes.mark(d.note), d.table or '-',
             *_compare(d.params, sizes.detectors[d.config] / 1e6, 'M'), _number(d.box_ap), _number(d.mask_ap),
             _link(configs, d.config)) for d in system.detectors))
    head = f'## {system.title}\n\n[{system.paper}]({system.url}). {system.text}\n'
    return '\n'.join((head, networks, *([detectors] if system.detectors else [])))


def backbone_millions(detector: Detector, sizes: Mapping[str, Complexity], attention: Mapping[tuple[str, str], int]) -> float:
    """Parameters of a detector's backbone with the ImageNet classifier and its attention modules, in millions."""
    network, _, module = detector.backbone.partition(' + ')
    return (sizes[network].parameters + (attention[network, module] if module else 0)) / 1e6


def config_file(configs: Path, name: str) -> Path:
    """Where a config is or would be, by its name without ``.py``."""
    return configs / f'{name}.py'


def _link(configs: Path, name: str) -> str:
    return f'[{Path(name).name}](../configs/{name}.py)' if config_file(configs, name).is_file() else '-'


def _number(value: float | None) -> str:
    """A printed figure with the digits that it is printed with, and at least one after the point."""
    return '-' if value is None else f'{value:.{_decimals(value)}f}'


def _decimals(value: float) -> int:
    return next((digits for digits in (1, 2, 3) if round(value, digits) == value), 4)


def _compare(printed: float | None, computed: float, unit: str) -> tuple[str, str, str]:
    """Printed, computed to as many digits (at least two after the point), and the difference in percent of the printed figure."""
    if printed is None:
        return '-', f'{computed:.{2 if computed >= 0.1 else 4}f}{unit}', '-'
    difference = f'{100 * (computed / printed - 1):+.1f} %'
    return (f'{_number(printed)}{unit}', f'{computed:.{max(2, _decimals(printed))}f}{unit}',
            '0.0 %' if difference[1:] == '0.0 %' else difference)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ('---', ) * len(header), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


class _Notes:
    """Numbered notes, one for each distinct text."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """What refers to a note: its number, or nothing for no text."""
        if not text:
            return ''
        if text not in self.texts:
            self.texts.append(text)
        return f' ({self.texts.index(text) + 1})'

    def text(self) -> str:
        """The list of notes."""
        return '\n'.join(('## Notes\n', *(f'{number}. {text}' for number, text in enumerate(self.texts, 1)), ''))
