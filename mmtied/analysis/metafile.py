"""configs/metafile.yml, by which OpenMMLab's tools find configs: every config with its size and what the papers print."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from mmtied.version import __version__

from .complexity import Complexity
from .model_zoo import PRINTED, SYSTEMS, backbone_millions, config_file
from .published import DETECTORS, NETWORKS, Detector, Network
from .systems import System, SystemDetector, SystemNetwork, SystemSizes

#: What every accuracy here is, inside parentheses and without a comma, as a name in the metafile.
PRINTED_ASIDE = PRINTED.replace(', ', ' - ')
#: The collections of the paper: its networks, and the untied ones that it compares them with.
_TIED, _UNTIED = 'Tied Block Convolution', 'Untied Baselines'
_EPOCHS = {'1x': 12, '20e': 20, '2x': 24}
#: Epochs of the data sets that have no named schedule: passes over the data, with its repetitions.
_DATASET_EPOCHS = {'Cityscapes': 64, 'Pascal VOC': 12}
_DATASET_OF_CLASSES = {1000: 'ImageNet-1k', 100: 'CIFAR-100', 10: 'CIFAR-10'}
_HEAD = f"""# Written by `python tools/model_table.py`. Accuracies are {PRINTED}, so there are no Weights.
# Parameters are in millions; a detector's are those of its backbone with the ImageNet classifier, as the paper counts them.
"""


def render_metafile(sizes: Mapping[str, Complexity], attention: Mapping[tuple[str, str], int], configs: Path,
                    systems: Mapping[str, SystemSizes] | None = None) -> str:
    """The file's text, of the configs that exist; arguments as in `model_zoo.render_page`."""
    paper = {'URL': 'https://arxiv.org/abs/2009.12021',
             'Title': 'Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters'}
    code = {'README': '../docs/model_zoo.md', 'Code': {'URL': 'mmtied/backbones', 'Version': __version__}}
    collections = [{'Name': name, 'Paper': paper, **code} for name in (_TIED, _UNTIED)]
    models = list(_paper_models(sizes, attention, configs))
    for system in SYSTEMS:
        if system.title in (systems or {}):
            collections.append({'Name': system.title, 'Paper': {'URL': system.url, 'Title': system.paper}, **code})
            models += _system_models(system, systems[system.title], configs)
    return _HEAD + yaml.safe_dump({'Collections': collections, 'Models': models}, sort_keys=False, width=130)


def _paper_models(sizes: Mapping[str, Complexity], attention: Mapping[tuple[str, str], int], configs: Path) -> Iterator[dict]:
    """The entries of the tied networks and of those that the paper compares them with."""
    for network in NETWORKS:
        config = f'imagenet/{network.config}'
        if config_file(configs, config).is_file():
            yield _classifier(network, config, _collection(config), sizes[network.name], 'ImageNet-1k',
                              ('Top 1 Accuracy', network.top1), epochs=100)
    for detector in DETECTORS:
        if config_file(configs, detector.config).is_file():
            epochs = _EPOCHS[detector.schedule] if detector.schedule else _DATASET_EPOCHS[detector.dataset]
            size = {'Backbone Parameters (M)': round(backbone_millions(detector, sizes, attention), 2), 'Epochs': epochs}
            yield _detector(detector, _collection(detector.config), size, detector.dataset)


def _system_models(system: System, sizes: SystemSizes, configs: Path) -> Iterator[dict]:
    """The entries of another system."""
    for network in system.networks:
        if config_file(configs, network.config).is_file():
            yield _classifier(network, network.config, system.title, sizes.networks[network.name],
                              _DATASET_OF_CLASSES[network.classes], ('top-1 error', network.error))
    for detector in system.detectors:
        if config_file(configs, detector.config).is_file():
            size = {'Trained Parameters (M)': round(sizes.detectors[detector.config] / 1e6, 2)}
            yield _detector(detector, system.title, size, 'COCO')


def _collection(config: str) -> str:
    """The collection of a config of the paper."""
    return _TIED if 'tied' in config else _UNTIED


def _classifier(network: Network | SystemNetwork, config: str, collection: str, size: Complexity, data: str,
                result: tuple[str, float | None], epochs: int | None = None) -> dict:
    metadata = {'Training Data': data, **({'Epochs': epochs} if epochs else {}), 'Architecture': [network.name],
                'Parameters (M)': round(size.parameters / 1e6, 2), 'Multiply-Adds (G)': round(size.multiply_adds / 1e9, 2)}
    if network.params:
        metadata['Parameters Printed In The Paper (M)'] = network.params
    return _model(config, collection, metadata, ('Image Classification', data, *result))


def _detector(detector: Detector | SystemDetector, collection: str, size: dict, data: str) -> dict:
    metadata = {'Training Data': data, 'Architecture': [detector.detector, detector.backbone, 'FPN'], **size}
    return _model(detector.config, collection, metadata, ('Object Detection', data, 'box AP', detector.box_ap),
                  ('Instance Segmentation', data, 'mask AP', detector.mask_ap))


def _model(config: str, collection: str, metadata: dict, *results: tuple[str, str, str, float | None]) -> dict:
    """A model's entry; a result without a printed figure is left out."""
    entry = {'Name': Path(config).name, 'In Collection': collection, 'Config': f'configs/{config}.py', 'Metadata': metadata}
    printed = [{'Task': task, 'Dataset': dataset, 'Metrics': {f'{metric} ({PRINTED_ASIDE})': value}}
               for task, dataset, metric, value in results if value is not None]
    return {**entry, 'Results': printed} if printed else entry
