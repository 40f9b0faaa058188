"""Classification: CIFAR-10 with networks of one shape whose convolutions share weights in different ways."""

import statistics
from dataclasses import dataclass
from math import pi, sqrt
from pathlib import Path
from statistics import mean

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch import Tensor, nn

from mmtied.analysis.complexity import measure
from mmtied.analysis.filter_similarity import (
    count_channels,
    guided_similarity,
    layers_at,
    pairs_of,
    weight_similarities,
)
from mmtied.cli import repository_path
from mmtied.launch.config import load_config
from mmtied.tables import markdown_table

from . import backbones, training  # noqa: F401  (backbones registers the grouped convolution)
from .detectors_section import describe_seeds, spread
from .runs import Run

#: Depths of the 3x3 convolutions whose filter patterns are compared.
DEPTHS = (.25, .5, .75, 1)
CONFIG = 'configs/cifar/regconv_w16_d20_cifar10.py'
_NET = dict(type='mmtied.IGCNetCIFAR', depth=20, identity=True)
#: Names of the models on the page.
CLASSIFIERS = {'plain': 'plain, 16 wide', 'grouped': 'grouped by 2, 22 wide', 'tied': 'tied by 2, 22 wide',
               'igc': 'interleaved (IGC), 48 wide', 'shared': 'shared filter bases'}
#: Grouped and tied convolutions of 22 channels need 5 % fewer multiply-adds than plain ones of 16.
MODELS = {
    'plain': dict(_NET, base_channels=16, conv_cfg=None),
    'grouped': dict(_NET, base_channels=22, conv_cfg=dict(type='GroupedConv2d', num_groups=2)),
    'tied': dict(_NET, base_channels=22, conv_cfg=dict(type='TBC', num_blocks=2)),
    'igc': dict(_NET, base_channels=48, conv_cfg=dict(type='IGC', num_primary=24)),
    'shared': dict(type='mmtied.SharedResNetCIFAR', depth=20),
}


@dataclass(frozen=True)
class Preset:
    """Size of the experiment."""

    seeds: int
    epochs: int
    batch_size: int


PRESETS = {'cpu': Preset(seeds=2, epochs=1, batch_size=64), 'gpu': Preset(seeds=5, epochs=200, batch_size=128)}


def prepare(preset: str, root: Path) -> None:
    """Check that the data set exists.

    Raises:
        ValueError: A folder is missing.
    """
    for split in ('train', 'test'):
        folder = root / 'cifar10' / split
        if not folder.is_dir():
            raise ValueError(f'{folder} is missing; experiments/data.md explains where to get CIFAR-10 and where to put it')


def make_config(model: str, preset: str, root: Path) -> Config:
    """Return the config of a model: IGC's recipe with a cosine schedule."""
    settings = PRESETS[preset]
    cfg = load_config(str(repository_path(CONFIG)))
    backbone = MODELS[model]
    cfg.model.backbone = dict(backbone)
    cfg.model.head.in_channels = 4 * backbone.get('base_channels', 16)
    cfg.model.data_preprocessor = dict(num_classes=10, mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255],
                                       to_rgb=True)
    cfg.data_preprocessor = cfg.model.data_preprocessor
    load = dict(type='LoadImageFromFile')
    augment = [dict(type='RandomCrop', crop_size=32, padding=4), dict(type='RandomFlip', prob=.5, direction='horizontal')]
    for split, folder, steps in (('train', 'train', augment), ('val', 'test', []), ('test', 'test', [])):
        loader = cfg[f'{split}_dataloader']
        loader.batch_size = settings.batch_size
        loader.dataset = dict(type='CustomDataset', data_root=str(root / 'cifar10'), data_prefix=folder, with_label=True,
                              pipeline=[load, *steps, dict(type='PackInputs')])
    cfg.train_cfg.update(max_epochs=settings.epochs, val_interval=settings.epochs)
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=.1, by_epoch=False, begin=0, end=100),
                           dict(type='CosineAnnealingLR', T_max=settings.epochs, convert_to_iter_based=True)]
    return cfg


def train(run: Run, root: Path, work_root: Path) -> None:
    """Train or resume one run, and keep its accuracy and the similarity of its filters."""
    running, summary = training.train(run, make_config(run.model, run.preset, root), root, work_root)
    model = running.model.eval()
    run.keep(training.kept_files(run, work_root),
             {**summary, 'multiply_adds': measure(model.backbone, size=32).multiply_adds,
              'accuracy': running.message_hub.get_scalar('val/accuracy/top1').current(),
              'weights': weight_similarity(model.backbone), 'patterns': pattern_similarity(model, some_images(running))})


def weight_similarity(network: nn.Module) -> dict[str, float]:
    """Return the similarity of filters that see the same channels, over all 3x3 convolutions except the stem.

    Returns:
        'mean', the mean absolute cosine of their weights, and 'by_chance', the same for random filters: sqrt(2 / (pi n)) for
        filters of n weights.
    """
    layers = [layer for layer in network.modules()
              if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.in_channels > 3]
    banks = [(bank, layer.weight[0].numel()) for layer in layers for bank in weight_similarities(layer) if len(bank)]
    return {'mean': mean(bank.abs().mean().item() for bank, _ in banks),
            'by_chance': mean(sqrt(2 / (pi * size)) for _, size in banks)}


def pattern_similarity(model: nn.Module, images: Tensor, filters: int = 32) -> dict[str, float]:
    """Return the similarity of filters' guided backpropagation patterns, as in Figures 1 and 9 of Wang & Yu.

    Args:
        model: A classifier in evaluation mode.
        images: Normalized images, shape (N, 3, H, W).
        filters: Number of filters compared per layer, the first ones.

    Returns:
        'mean', the mean cosine, and 'above_half', the share above 0.5; both averaged over the layers at `DEPTHS`.
    """
    found = []
    for layer in layers_at(model, DEPTHS):
        channels = range(min(filters, count_channels(model, layer, images)))
        found.append(pairs_of(guided_similarity(model, layer, [images], channels)))
    return {'mean': mean(layer.mean().item() for layer in found),
            'above_half': mean((layer > .5).float().mean().item() for layer in found)}


def some_images(running: Runner, number: int = 32) -> Tensor:
    """Return preprocessed images of all classes, spread evenly over the validation set, which is sorted by class."""
    dataset = running.val_dataloader.dataset
    chosen = [dataset[index * len(dataset) // number] for index in range(min(number, len(dataset)))]
    return running.model.data_preprocessor(pseudo_collate(chosen))['inputs']


def classification_section(preset: str, sides: dict[str, list[Run]]) -> str:
    """Return the section of docs/evidence.md on CIFAR-10: accuracy, and similarity of the trained filters."""
    summaries = {model: [run.read_summary() for run in side] for model, side in sides.items()}
    rows = []
    for model, runs in summaries.items():
        first = runs[0]
        rows.append([CLASSIFIERS[model], f'{first["backbone_parameters"] / 1e3:.0f}k', f'{first["multiply_adds"] / 1e6:.1f}M',
                     spread([run['accuracy'] for run in runs]), spread([run['weights']['mean'] for run in runs], 3),
                     f'{first["weights"]["by_chance"]:.3f}', spread([run['patterns']['mean'] for run in runs], 2),
                     spread([100 * run['patterns']['above_half'] for run in runs])])
    header = ['3x3 convolutions', 'parameters', 'multiply-adds', 'accuracy in %', 'cosine of weights', 'by chance',
              'cosine of patterns', 'pairs above 0.5, in %']
    settings = PRESETS[preset]
    epochs = f'{settings.epochs} epoch' + ('s' if settings.epochs > 1 else '')
    return f"""\
## Classification, and similarity of filters

CIFAR-10 in {epochs} with batches of {settings.batch_size}, {describe_seeds(sides)}; all networks have 20 layers
and follow IGC's recipe with a cosine schedule. The widths of the plain, grouped and tied networks give about equal multiply-adds.
Wang & Yu regard filters with similar responses as redundant (Figures 1 and 9), and report that tied filters are less similar.

{verdict_on_filters(summaries)}

{markdown_table(header, rows)}

Values are means over seeds, ± their standard deviation. *Cosine of weights*: mean absolute cosine between filters that see
the same channels. *By chance*: the same for random filters; it is larger the fewer weights a filter has. *Cosine of patterns*:
mean cosine between the guided backpropagation patterns of a layer's first 32 filters on 32 test images, over the layers at a
quarter, half, three quarters and the end of the network.
"""


def verdict_on_filters(summaries: dict[str, list[dict]]) -> str:
    """Describe whether the filters of the tied network are less similar than those of the plain one."""
    if not {'plain', 'tied'} <= set(summaries):
        return ''
    plain, tied = ([run['patterns']['mean'] for run in summaries[model]] for model in ('plain', 'tied'))
    order = ('less alike than' if max(tied) < min(plain) else 'more alike than' if min(tied) > max(plain)
             else 'as alike, as far as these seeds can tell, as')
    alike = {model: statistics.mean(run['patterns']['mean'] for run in runs) for model, runs in summaries.items()}
    accuracies = [statistics.mean(run['accuracy'] for run in summaries[model]) for model in ('tied', 'plain')]
    grouped = f' (the grouped network, which shares no filter: {alike["grouped"]:.2f})' if 'grouped' in alike else ''
    return (f'**Do tied filters correlate less?** They respond {order} those of the plain one: cosine '
            f'{alike["tied"]:.2f} against {alike["plain"]:.2f}{grouped}. The tied network classifies {accuracies[0]:.1f} % '
            f'of the test images correctly, the plain one {accuracies[1]:.1f} %.'
            + (' With one seed this is preliminary.' if min(len(tied), len(plain)) == 1 else ''))
