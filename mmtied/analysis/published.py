"""Figures printed in the papers, read from the YAML files in the folder ``papers``.

Parameters are in millions, multiply-adds (called FLOPs in papers) in billions, accuracies and errors in percent. A figure that is
not printed is None. Each file describes one `Paper`; its lists `networks`, `attention` and `detectors` have the fields of the
classes below, and `shared` defines YAML anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

#: File names in the folder ``papers``, in the order of the model zoo.
PAPERS = ('tied_block_convolution', 'shared_filter_bases', 'interleaved_group_convolution', 'groupable_convolution')


@dataclass(frozen=True, kw_only=True)
class Network:
    """A classifier of a paper, or one of its baselines.

    Attributes:
        backbone: Config of the backbone.
        tables: Tables that print it, separated by commas; may be empty.
        config: Its file in ``configs`` without ``.py``; may be empty.
        options: The ``--cfg-options`` that turn its config into this row; may be empty.
        grouped_share: Multiply-adds of the grouped convolutions relative to ResNeXt-32x4d of the same depth.
        deviation: Standard deviation of the error over several runs.
        channels: Channels of the backbone's last output.
        classes: Number of classes; 1000 is ImageNet, 100 and 10 are CIFAR.
        size: Height and width of the image in pixels.
        counts: Part of the classifier whose parameters are printed: a key of `COUNTS` in docs/model_zoo_page.py.
        weights: Markdown link to public trained weights; may be empty.
        note: Caveat about the figures.
    """

    name: str
    backbone: dict
    tables: str = ''
    config: str = ''
    options: str = ''
    params: float | None = None
    multiply_adds: float | None = None
    grouped_share: float | None = None
    top1: float | None = None
    top5: float | None = None
    error: float | None = None
    error_top5: float | None = None
    deviation: float | None = None
    training_error: float | None = None
    training_error_top5: float | None = None
    channels: int = 2048
    classes: int = 1000
    size: int = 224
    counts: str = 'all'
    weights: str = ''
    note: str = ''


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Attention modules of a network; `params` counts only these modules."""

    network: str
    module: str
    backbone: dict
    config: str
    tables: str = ''
    params: float | None = None
    note: str = ''


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A detector; average precision is in percent.

    Attributes:
        config: Its file in ``configs`` without ``.py``.
        backbone: Name of its network; with attention modules ``'<network> + <module>'``.
        tables: Tables that print it, separated by commas; may be empty.
        schedule: '1x' (12 epochs on COCO), '2x' (24) or '20e' (20); empty for other schedules.
        box_sizes: AP of boxes of small, medium and large objects; `mask_sizes` of masks.
        dataset: Data set for training and evaluation.
        note: Caveat about the figures.
    """

    config: str
    detector: str
    backbone: str
    tables: str = ''
    schedule: str = ''
    params: float | None = None
    box_ap: float | None = None
    mask_ap: float | None = None
    box_ap50: float | None = None
    mask_ap50: float | None = None
    box_ap75: float | None = None
    mask_ap75: float | None = None
    box_sizes: Sequence[float] | None = None
    mask_sizes: Sequence[float] | None = None
    dataset: str = 'COCO'
    note: str = ''


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper and its models in the model zoo: those it reports, and those built on them here.

    Attributes:
        title: Heading in the model zoo, and name of the collection in the metafile.
        paper: Title of the paper.
        networks: Classifiers.
        text: Introduction to the classifiers, in Markdown; `attention_text` and `detector_text` introduce the other tables.
        baselines: Collection of the baseline networks; empty if they are part of the paper's collection.
        epochs: Training epochs of the classifiers, if all have the same number.
        counted: Parameters counted for a detector: the 'trained' ones, or the 'backbone' with the ImageNet classifier.
    """

    title: str
    paper: str
    url: str
    networks: tuple[Network, ...]
    attention: tuple[Attention, ...] = ()
    detectors: tuple[Detector, ...] = ()
    text: str = ''
    attention_text: str = ''
    detector_text: str = ''
    baselines: str = ''
    epochs: int | None = None
    counted: str = 'trained'


@cache
def load_papers() -> tuple[Paper, ...]:
    """Read all papers, in the order of the model zoo."""
    return tuple(load_paper(name) for name in PAPERS)


@cache
def load_paper(name: str) -> Paper:
    """Read one of `PAPERS`.

    Example:
        >>> load_paper('shared_filter_bases').networks[1].params
        11.79
    """
    text = (Path(__file__).with_name('papers') / f'{name}.yml').read_text(encoding='utf-8')
    fields = yaml.safe_load(text)
    fields.pop('shared')
    for key, kind in (('networks', Network), ('attention', Attention), ('detectors', Detector)):
        fields[key] = tuple(kind(**row) for row in fields.get(key, ()))
    return Paper(**fields)
