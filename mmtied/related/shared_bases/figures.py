"""Figures of Section 4.4: gradients of shared bases (Figure 3) and similarity of coefficients (Figure 4)."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmtied.plotting import hide_spines, new_figure, plain_label
from mmtied.tables import read_csv

#: File in the work_dir that `BasisGradientHook` writes, and its columns.
GRADIENTS_FILE = 'basis_gradients.csv'
COLUMNS = ('iteration', 'basis', 'mean', 'max', 'norm')
#: Keys of coefficients: of a combined convolution (with stage and role), and the last convolution of a bottleneck that shares.
_COMBINED = re.compile(r'\b(layer\d+)\.\d+\.(?:(entry|exit)\.conv|conv2)\.coefficients\.weight$')
_LAST = re.compile(r'\b(layer\d+)\.[1-9]\d*\.exit\.conv\.weight$')
_MEAN, _MAXIMUM = '#0f4c5c', '#7fb7be'


def read_gradients(run: Path) -> dict[str, np.ndarray]:
    """Read the gradients in a work_dir, or in the file itself: for each basis, rows of (iteration, mean, maximum, norm)."""
    path = run / GRADIENTS_FILE if run.is_dir() else run
    if not path.is_file():
        raise ValueError(f'{run}: no {GRADIENTS_FILE}; train with custom_hooks = [dict(type="mmtied.BasisGradientHook")]')
    records = defaultdict(list)
    _, rows = read_csv(path)
    try:
        for row in rows:
            records[row['basis']].append([float(row[name]) for name in COLUMNS if name != 'basis'])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f'{path}: expected the columns {", ".join(COLUMNS)}, with numbers') from None
    if not records:
        raise ValueError(f'{path}: no records; the run ended before its first step')
    return {name: np.array(values) for name, values in records.items()}


def draw_gradients(runs: Mapping[str, Mapping[str, np.ndarray]], first: int = 0, last: int | None = None):
    """Draw Figure 3: one column per run, with bars of each basis's maximum and mean gradient above curves of its norm.

    The bars of all records from iteration `first` to `last` (default: the run's end) are drawn on top of each other. The columns
    share their scales.
    """
    figure = new_figure(max(4, 3.2 * len(runs)), 5.6)
    axes = figure.subplots(2, len(runs), squeeze=False, sharey='row')
    for column, (name, bases) in enumerate(runs.items()):
        bars, lines = axes[:, column]
        for place, (basis, records) in enumerate(bases.items()):
            chosen = records[(records[:, 0] >= first) & (records[:, 0] <= (np.inf if last is None else last))]
            if not len(chosen):
                raise ValueError(f'{name}: no record from iteration {first} to {last}; it has {records[0, 0]:.0f} to '
                                 f'{records[-1, 0]:.0f}')
            alpha = max(0.02, min(0.5, 5 / len(chosen)))
            bars.bar([place] * len(chosen), chosen[:, 2], 0.8, color=_MAXIMUM, alpha=alpha)
            bars.bar([place] * len(chosen), chosen[:, 1], 0.8, color=_MEAN, alpha=alpha)
            lines.plot(records[:, 0], records[:, 3], linewidth=1, label=plain_label(_short(basis)))
        bars.set_xticks(range(len(bases)), [plain_label(_short(basis)) for basis in bases], fontsize=7)
        bars.set_title(plain_label(name), fontsize=9)
        bars.set_yscale('log')
        lines.set_yscale('log')
        lines.set_xlabel('iteration')
        for each in (bars, lines):
            hide_spines(each)
    axes[0, 0].set_ylabel('gradient: maximum, mean')
    axes[1, 0].set_ylabel('norm of the gradient')
    axes[1, -1].legend(fontsize=7)
    return figure


def find_coefficients(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the coefficients of each shared basis in a state_dict as rows, in the order of the layers.

    Coefficients are the 1x1 convolutions after a basis: in basic blocks that of each combined convolution, in bottlenecks that
    share their 3x3 convolution the last one. They are named by stage, such as 'layer2', or if a stage has two bases by stage and
    role, 'layer2 entry' and 'layer2 exit'.

    Raises:
        ValueError: The weights contain no coefficients.
    """
    found = defaultdict(list)
    for key, value in weights.items():
        combined, last = _COMBINED.search(key), _LAST.search(key)
        match = combined or last
        bases = match and f'{key[:match.start()]}{match[1]}.bases'
        if combined:
            found[f'{match[1]} {match[2]}' if f'{bases}.exit.weight' in weights else match[1]].append(value.flatten(1).float())
        elif last and f'{bases}.middle.weight' in weights:
            found[match[1]].append(value.flatten(1).float())
    if not found:
        raise ValueError(f'the checkpoint has no coefficients of shared bases: {_why_none(weights)}')
    return {name: torch.cat(values) for name, values in sorted(found.items())}


def _why_none(weights: Mapping[str, Tensor]) -> str:
    """Explain why a network has no coefficients to compare."""
    if any(key.endswith('.bases.expand.weight') for key in weights):
        return 'MobileNetV2 has a depthwise convolution between the basis and the next 1x1 convolution'
    if any(key.endswith('.bases.exit.weight') for key in weights):
        return 'the blocks share the 1x1 convolutions after the basis too'
    return 'expected a SharedResNet, SharedResNetCIFAR, SharedResNeXtCIFAR or SharedDenseNetCIFAR'


def coefficient_similarity(coefficients: Tensor) -> np.ndarray:
    """Return the absolute cosine similarity of each pair of rows, shape (rows, rows)."""
    unit = torch.nn.functional.normalize(coefficients, dim=1)
    return (unit @ unit.T).abs().numpy()


def mean_similarity(similarity: np.ndarray) -> float:
    """Return the mean over pairs of different rows."""
    count = len(similarity)
    return float((similarity.sum() - np.trace(similarity)) / (count * (count - 1)))


def draw_similarity(networks: Mapping[str, Mapping[str, np.ndarray]], stages: Sequence[str]):
    """Draw Figure 4: a similarity matrix for each network (rows) and stage (columns); brighter is more similar."""
    figure = new_figure(3.2 * len(stages) + 0.8, 3.2 * len(networks))
    axes = figure.subplots(len(networks), len(stages), squeeze=False)
    for row, (name, matrices) in zip(axes, networks.items(), strict=True):
        for place, stage in zip(row, stages, strict=True):
            image = place.imshow(matrices[stage], cmap='inferno', vmin=0, vmax=1, interpolation='nearest')
            place.set_title(f'{plain_label(name)}, {stage}: mean {mean_similarity(matrices[stage]):.3f}', fontsize=8)
            place.tick_params(labelsize=6)
    figure.colorbar(image, ax=axes, shrink=0.6, label='absolute cosine')
    return figure


def _short(basis: str) -> str:
    """Shorten backbone.layer2.bases.entry to layer2 entry."""
    return basis.removeprefix('backbone.').replace('.bases.', ' ')
