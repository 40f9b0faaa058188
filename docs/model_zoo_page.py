#!/usr/bin/env python
"""Count every network of the papers, and write docs/model_zoo.md and configs/metafile.yml.

    python docs/model_zoo_page.py

Takes a few minutes on one core. A test checks that both files match the networks and the printed figures in `published`.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmtied.analysis.complexity import Complexity, ImageNetClassifier, count_parameters, measure
from mmtied.analysis.published import Detector, Network, Paper, load_papers
from mmtied.atomic import save_text
from mmtied.cli import user_errors
from mmtied.compat import require
from mmtied.related.groupable import grouped_multiply_adds
from mmtied.tables import markdown_table
from mmtied.version import __version__

ROOT = Path(__file__).resolve().parents[1]
#: Caption of every accuracy.
PRINTED = 'printed in the paper, not trained here'
_INTRODUCTION = f"""# Model zoo

Every network of the papers, with its config, printed accuracy, and printed and computed sizes. Train a config with
`python tools/train.py`; pass the options listed after a config with `--cfg-options`.

**Every accuracy on this page is {PRINTED}.** The column "weights" links public trained weights; none of them are ours. For most
untied detectors, MMDetection publishes weights, for its own configs.

- **Parameters** of a classifier include its last layer.
- **Multiply-adds** are those of convolutions and fully connected layers for one image (224 x 224, on CIFAR and SVHN 32 x 32), on
  which mmengine's counter and torch's FlopCounterMode agree.
- **Differences** are in percent of the printed figure.
- **AP** of detectors is on COCO val2017 or Cityscapes val.
- **Deviations** are over several runs, which `tools/train_seeds.py` trains.

`python docs/model_zoo_page.py` writes this page from the networks themselves and the printed figures; a test compares it with
both.
"""
_METAFILE_HEAD = f"""# Written by `python docs/model_zoo_page.py`. Accuracies are {PRINTED}, and no weights are ours.
# Parameters are in millions; backbone parameters are those of the backbone with the ImageNet classifier.
"""
_ATTENTION_LAYERS = ('SELayer', 'TiedSE', 'ContextBlock', 'TiedGCB')
_EPOCHS = {'1x': 12, '20e': 20, '2x': 24}
#: Epochs on data sets without a named schedule: passes over the data, counting repetitions.
_DATASET_EPOCHS = {'Cityscapes': 64, 'Pascal VOC': 12}
_CLASSIFICATION_DATA = {1000: 'ImageNet-1k', 100: 'CIFAR-100', 10: 'CIFAR-10'}


def _count_layers(module: nn.Module) -> int:
    """Count parameters without those of normalization layers."""
    norms = [part for part in module.modules() if isinstance(part, (_NormBase, nn.GroupNorm))]
    return count_parameters(module) - sum(map(count_parameters, norms))


#: Parts of a classifier whose parameters papers print.
COUNTS = {
    'all': count_parameters,
    'layers': _count_layers,
    'backbone': lambda classifier: count_parameters(classifier.backbone),
    'backbone layers': lambda classifier: _count_layers(classifier.backbone),
}


class Sizes(NamedTuple):
    """Counted sizes: classifiers by name, attention modules by network and module, detectors by config.

    `as_printed` counts the parameters that `Network.counts` names; `grouped` corresponds to `Network.grouped_share`.
    """

    networks: Mapping[str, Complexity]
    as_printed: Mapping[str, int]
    attention: Mapping[tuple[str, str], int]
    detectors: Mapping[str, int]
    grouped: Mapping[str, float] = {}


def measure_paper(paper: Paper, configs: Path) -> Sizes:
    """Build and count every model of a paper, except detectors without a config; takes a minute or two on one core."""
    networks, as_printed, detectors, grouped = {}, {}, {}, {}
    for row in paper.networks:
        classifier = ImageNetClassifier(_shapes(row.backbone), row.channels, row.classes).to('meta')
        networks[row.name] = measure(classifier, row.size)
        as_printed[row.name] = COUNTS[row.counts](classifier)
        if row.grouped_share:
            grouped[row.name] = grouped_share(classifier.backbone, row.backbone['depth'])
    attention = {(row.network, row.module): _count_attention(_shapes(row.backbone)) for row in paper.attention}
    for row in _with_config(paper.detectors, configs):
        if paper.counted == 'backbone':
            network, _, module = row.backbone.partition(' + ')
            detectors[row.config] = networks[network].parameters + (attention[network, module] if module else 0)
        else:
            detectors[row.config] = _count_trained(configs / f'{row.config}.py')
    return Sizes(networks, as_printed, attention, detectors, grouped)


def _shapes(config: Mapping) -> nn.Module:
    """Build a network on the meta device, without initializing weights."""
    try:
        with torch.device('meta'):
            return MODELS.build(ConfigDict(config))
    except RuntimeError:  # mmpretrain's EfficientNet reads numbers from tensors
        return MODELS.build(ConfigDict(config))


def grouped_share(backbone: nn.Module, depth: int) -> float:
    """Return the multiply-adds of a backbone's 3x3 convolutions as a multiple of those of ResNeXt-32x4d of this depth."""
    baseline = _shapes({'type': 'mmtied.GResNeXt', 'depth': depth, 'groups': 32})
    return grouped_multiply_adds(backbone) / grouped_multiply_adds(baseline)


def _count_attention(backbone: nn.Module) -> int:
    layers = [module for module in backbone.modules() if type(module).__name__ in _ATTENTION_LAYERS]
    return sum(map(count_parameters, layers))


def _count_trained(config: Path) -> int:
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return count_parameters(_shapes(cfg.model), trained_only=True)


def _with_config(rows: Iterable[Network] | Iterable[Detector], configs: Path) -> list:
    return [row for row in rows if (configs / f'{row.config}.py').is_file()]


def render_page(papers: Sequence[tuple[Paper, Sizes]], configs: Path) -> str:
    """Return the text of docs/model_zoo.md, given papers with their sizes and the folder of configs."""
    notes = _Notes()
    sections = [section for paper, sizes in papers for section in _render_paper(paper, sizes, configs, notes)]
    return '\n'.join((_INTRODUCTION, *sections, notes.text()))


def _render_paper(paper: Paper, sizes: Sizes, configs: Path, notes: '_Notes') -> Iterator[str]:
    """Yield the parts of a paper's section."""
    size_columns = ('params printed', 'computed', 'difference')
    errors = any(network.error is not None for network in paper.networks)
    yield f'## {paper.title}\n\n[{paper.paper}]({paper.url})\n\n{paper.text}\n'
    yield _table(
        ('network', 'table', *size_columns, 'multiply-adds printed', 'computed', 'difference',
         *(('GConv printed', 'computed') if sizes.grouped else ()), f'top-1{" error" if errors else ""} {PRINTED}', 'config',
         'weights'),
        ((n.name + notes.mark(n.note), n.tables or '-', *_compare(n.params, sizes.as_printed[n.name] / 1e6, 'M'),
          *_compare(n.multiply_adds, sizes.networks[n.name].multiply_adds / 1e9, 'G'),
          *((f'{n.grouped_share:.2f}x', f'{sizes.grouped[n.name]:.2f}x') if n.name in sizes.grouped else
            ('-', '-') if sizes.grouped else ()),
          _number(n.error if errors else n.top1) + (f' ± {n.deviation:.2f}' if n.deviation else ''),
          _link(configs, n.config, n.options), n.weights or '-') for n in paper.networks))
    if paper.attention:
        yield f'### Attention modules\n\n{paper.attention_text}\n'
        yield _table(
            ('network', 'module', 'table', *size_columns, 'config'),
            ((a.network, a.module + notes.mark(a.note), a.tables or '-',
              *_compare(a.params, sizes.attention[a.network, a.module] / 1e6, 'M'), _link(configs, a.config))
             for a in paper.attention))
    if paper.detectors:
        by_size = any(detector.box_sizes for detector in paper.detectors)
        yield f'### Detectors\n\n{paper.detector_text}\n'
        yield _table(
            ('detector', 'backbone', 'data', 'schedule', 'table', *size_columns, f'box AP {PRINTED}', f'mask AP {PRINTED}',
             *(('boxes S, M, L', 'masks S, M, L') if by_size else ()), 'config'),
            ((d.detector, d.backbone + notes.mark(d.note), d.dataset, d.schedule or '-', d.tables or '-',
              *_compare(d.params, sizes.detectors[d.config] / 1e6, 'M'), _number(d.box_ap), _number(d.mask_ap),
              *((_numbers(d.box_sizes), _numbers(d.mask_sizes)) if by_size else ()), _link(configs, d.config))
             for d in _with_config(paper.detectors, configs)))


def _link(configs: Path, name: str, options: str = '') -> str:
    if not (configs / f'{name}.py').is_file():
        return '-'
    return f'[{Path(name).name}](../configs/{name}.py)' + (f' `{options}`' if options else '')


def _numbers(values: Sequence[float] | None) -> str:
    return ', '.join(map(_number, values)) if values else '-'


def _number(value: float | None) -> str:
    """Format a printed figure with all its digits and at least one decimal."""
    return '-' if value is None else f'{value:.{_decimals(value)}f}'


def _decimals(value: float) -> int:
    return next((digits for digits in (1, 2, 3) if round(value, digits) == value), 4)


def _compare(printed: float | None, computed: float, unit: str) -> tuple[str, str, str]:
    """Format the printed and the computed figure to the same decimals (at least two), and their difference in percent."""
    if printed is None:
        return '-', f'{computed:.{2 if computed >= 0.1 else 4}f}{unit}', '-'
    difference = f'{100 * (computed / printed - 1):+.1f} %'
    return (f'{_number(printed)}{unit}', f'{computed:.{max(2, _decimals(printed))}f}{unit}',
            '0.0 %' if difference[1:] == '0.0 %' else difference)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return markdown_table(header, rows, numbers=False) + '\n'


class _Notes:
    """Numbered notes, one for each distinct text."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """Return the reference to a note, such as ' (1)'; empty for an empty text."""
        if not text:
            return ''
        if text not in self.texts:
            self.texts.append(text)
        return f' ({self.texts.index(text) + 1})'

    def text(self) -> str:
        """Return the list of notes."""
        return '\n'.join(('## Notes\n', *(f'{number}. {text}' for number, text in enumerate(self.texts, 1)), ''))


def render_metafile(papers: Sequence[tuple[Paper, Sizes]], configs: Path) -> str:
    """Return the text of configs/metafile.yml, which OpenMMLab's tools use to find configs; arguments as in `render_page`."""
    collections, models = [], []
    for paper, sizes in papers:
        for name in filter(None, (paper.title, paper.baselines)):
            collections.append({'Name': name, 'Paper': {'URL': paper.url, 'Title': paper.paper},
                                'README': '../docs/model_zoo.md', 'Code': {'URL': 'mmtied', 'Version': __version__}})
        models += [_classifier(paper, row, sizes) for row in _with_config(paper.networks, configs) if not row.options]
        models += [_detector(paper, row, sizes) for row in _with_config(paper.detectors, configs)]
    return _METAFILE_HEAD + yaml.safe_dump({'Collections': collections, 'Models': models}, sort_keys=False, width=130)


def _classifier(paper: Paper, network: Network, sizes: Sizes) -> dict:
    size, data = sizes.networks[network.name], _CLASSIFICATION_DATA[network.classes]
    metadata = {'Training Data': data, **({'Epochs': paper.epochs} if paper.epochs else {}), 'Architecture': [network.name],
                'Parameters (M)': round(size.parameters / 1e6, 2), 'Multiply-Adds (G)': round(size.multiply_adds / 1e9, 2)}
    if network.params:
        metadata['Parameters Printed In The Paper (M)'] = network.params
    figures = {'Top 1 Accuracy': network.top1, 'Top 5 Accuracy': network.top5, 'top-1 error': network.error,
               'top-5 error': network.error_top5, 'top-1 training error': network.training_error,
               'top-5 training error': network.training_error_top5}
    return _entry(paper, network.config, metadata, data, {'Image Classification': figures})


def _detector(paper: Paper, detector: Detector, sizes: Sizes) -> dict:
    epochs = _EPOCHS.get(detector.schedule) or _DATASET_EPOCHS[detector.dataset]
    metadata = {'Training Data': detector.dataset, 'Architecture': [detector.detector, detector.backbone, 'FPN'],
                f'{paper.counted.title()} Parameters (M)': round(sizes.detectors[detector.config] / 1e6, 2), 'Epochs': epochs}
    tasks = {'Object Detection': ('box', detector.box_ap, detector.box_ap50, detector.box_sizes),
             'Instance Segmentation': ('mask', detector.mask_ap, detector.mask_ap50, detector.mask_sizes)}
    return _entry(paper, detector.config, metadata, detector.dataset, {
        task: {f'{kind} AP': ap, f'{kind} AP50': ap50,
               **{f'{kind} AP_{size}': value for size, value in zip('SML', sizes or (), strict=False)}}
        for task, (kind, ap, ap50, sizes) in tasks.items()})


def _entry(paper: Paper, config: str, metadata: dict, dataset: str, results: Mapping[str, Mapping[str, float | None]]) -> dict:
    """Build the entry of a model from the metrics of each task, leaving out those without a printed figure."""
    collection = paper.baselines if paper.baselines and 'tied' not in config else paper.title
    entry = {'Name': Path(config).name, 'In Collection': collection, 'Config': f'configs/{config}.py', 'Metadata': metadata}
    aside = PRINTED.replace(', ', ' - ')  # no comma inside the name of a metric
    metrics = {task: {f'{metric} ({aside})': value for metric, value in values.items() if value is not None}
               for task, values in results.items()}
    printed = [{'Task': task, 'Dataset': dataset, 'Metrics': values} for task, values in metrics.items() if values]
    return {**entry, 'Results': printed} if printed else entry


def main(argv: Sequence[str] | None = None) -> None:
    """Count and write."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(argv)
    with user_errors():
        require(['mmdet', 'mmpretrain'], 'Counting the untied networks')
        configs = ROOT / 'configs'
        papers = [(paper, measure_paper(paper, configs)) for paper in load_papers()]
        save_text(ROOT / 'docs/model_zoo.md', render_page(papers, configs))
        save_text(configs / 'metafile.yml', render_metafile(papers, configs))


if __name__ == '__main__':
    main()
