"""Average precision over backbone size (Wang & Yu, Figure 6): printed figures and your own results."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from ..plotting import hide_spines, new_figure, plain_label
from ..tables import read_csv
from .published import load_paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Detector, schedule and metric of the four plots.
PANELS = (('RetinaNet', '2x', 'box_ap'), ('Cascade R-CNN', '20e', 'box_ap'), ('Mask R-CNN', '2x', 'box_ap'),
          ('Mask R-CNN', '2x', 'mask_ap'))
DETECTORS = tuple(dict.fromkeys(detector for detector, _, _ in PANELS))
#: Marker by source of a point.
_MARKERS = {'printed': 'o', "MMDetection's model zoo": 'D', 'yours': '*'}
_COLORS = {'TiedResNet': '#D55E00', 'ResNet': '#0072B2', 'ResNeXt': '#009E73', 'TiedResNeXt': '#E69F00', 'SENet': '#56B4E9',
           'TiedSENet': '#CC79A7', 'HRNetV2p': '#000000'}
_COLUMNS = ('detector', 'backbone', 'params', 'box_ap', 'mask_ap')


class Point(NamedTuple):
    """A point of the plot: one detector.

    Attributes:
        detector: One of `DETECTORS`.
        backbone: Name of its backbone.
        params: Parameters of the backbone with an ImageNet classifier, in millions.
        box_ap: Average precision of boxes in percent.
        mask_ap: Average precision of masks in percent.
        source: A key of `_MARKERS`.
    """

    detector: str
    backbone: str
    params: float
    box_ap: float | None = None
    mask_ap: float | None = None
    source: str = 'yours'

    @property
    def family(self) -> str:
        """The backbone's name up to the first hyphen or space; a line joins the points of a family."""
        return re.split(r'[- ]', self.backbone, maxsplit=1)[0]


def printed_points() -> list[Point]:
    """Return the points printed in the paper's Tables A.1 and A.2."""
    paper = load_paper('tied_block_convolution')
    params = {network.name: network.params for network in paper.networks if network.params}
    schedules = {(detector, schedule) for detector, schedule, _ in PANELS}
    return [Point(row.detector, row.backbone, params[row.backbone], row.box_ap, row.mask_ap, 'printed')
            for row in paper.detectors if (row.detector, row.schedule) in schedules and row.dataset == 'COCO'
            and 'A.' in row.tables]


def zoo_points() -> list[Point]:
    """Return the baselines of Figure 6 missing from the paper's tables, with the figures of MMDetection's model zoo."""
    text = (Path(__file__).with_name('papers') / 'figure_6_baselines.yml').read_text(encoding='utf-8')
    return [Point(**row, source="MMDetection's model zoo") for row in yaml.safe_load(text)]


def read_points(path: str | os.PathLike) -> list[Point]:
    """Read results from a CSV file with the columns detector, backbone, params, box_ap and optionally mask_ap."""
    header, rows = read_csv(path)
    missing = [name for name in _COLUMNS[:4] if name not in header]
    if missing:
        raise ValueError(f'{path}: no column {missing[0]!r}; expected {", ".join(_COLUMNS)}')
    return [_point(row, f'{path}, line {number}') for number, row in enumerate(rows, 2)]


def _point(row: dict[str, str], where: str) -> Point:
    if row['detector'] not in DETECTORS:
        raise ValueError(f'{where}: detector {row["detector"]!r}, expected one of {", ".join(DETECTORS)}')
    numbers = []
    for name in _COLUMNS[2:]:
        text = (row.get(name) or '').strip()
        try:
            numbers.append(float(text) if text else None)
        except ValueError:
            raise ValueError(f'{where}: {name} {text!r}, expected a number') from None
    params, *values = numbers
    if not params or not 0 < params < float('inf'):
        raise ValueError(f'{where}: params {row["params"]!r}, expected millions of parameters')
    for name, value in zip(_COLUMNS[3:], values, strict=True):
        if value is not None and not 0 <= value <= 100:
            raise ValueError(f'{where}: {name} {value:g}, expected percent from 0 to 100')
    return Point(row['detector'], row['backbone'] or 'yours', params, *values)


def plot_accuracy_over_size(points: Sequence[Point]) -> 'Figure':
    """Plot AP over parameters for RetinaNet, Cascade R-CNN, and boxes and masks of Mask R-CNN."""
    from matplotlib.lines import Line2D

    figure = new_figure(9.6, 3.9)
    families = list(dict.fromkeys([*_COLORS, *(point.family for point in points)]))
    spare = ('#8C564B', '#7F7F7F', '#17BECF', '#9467BD')
    colors = {family: _COLORS.get(family) or spare[number % len(spare)] for number, family in enumerate(families)}
    for axes, (detector, schedule, measure) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        shown = [point for point in points if point.detector == detector and getattr(point, measure) is not None]
        for family in families:
            _draw_family(axes, [point for point in shown if point.family == family], measure, colors[family])
        axes.set_title(f'{detector}, {schedule}', fontsize=9)
        axes.set_ylabel(f'{measure.partition("_")[0]} AP (%)', fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(color='.92', linewidth=.8)
        axes.margins(x=.28, y=.1)
        hide_spines(axes)
    figure.supxlabel('parameters of the backbone with its classifier, millions', fontsize=8)
    drawn = {point.family for point in points}
    handles = [Line2D([], [], color=color, label=plain_label(family)) for family, color in colors.items() if family in drawn]
    handles += [Line2D([], [], color='.4', linestyle='none', marker=marker, markersize=8 if marker == '*' else 5, label=source)
                for source, marker in _MARKERS.items() if any(point.source == source for point in points)]
    figure.legend(handles=handles, loc='outside upper center', ncols=6, frameon=False, fontsize=7.5)
    return figure


def _draw_family(axes: 'Axes', points: Sequence[Point], measure: str, color: str) -> None:
    """Draw the labeled points of a family, the smallest first."""
    from matplotlib.patheffects import withStroke

    points = sorted(points, key=lambda point: point.params)
    line = [point for point in points if point.source != 'yours']
    axes.plot([point.params for point in line], [getattr(point, measure) for point in line], color=color, linewidth=1, alpha=.7)
    for point in points:
        value, marker = getattr(point, measure), _MARKERS[point.source]
        axes.plot([point.params], [value], color=color, marker=marker, linestyle='none', markersize=10 if marker == '*' else 5,
                  markerfacecolor='white' if marker == 'D' else color, zorder=4)
        left = marker == 'o' and point.family in ('TiedResNet', 'TiedSENet')  # labels on the right would collide
        below = -11 if marker == 'D' else -7 if left and point is points[0] else 3
        short = point.backbone.removeprefix(point.family).strip('- ') or point.family
        axes.annotate(plain_label(point.backbone if point.source == 'yours' else short, 18), (point.params, value),
                      xytext=(-4 if left else 3, below), textcoords='offset points',
                      ha='right' if left else 'left', fontsize=5.8, color=color,
                      path_effects=[withStroke(linewidth=1.6, foreground='white')])
