"""Plots of learned groups, as in Figures 5 and 6."""

from typing import TYPE_CHECKING

import numpy as np

from mmtied.plotting import hide_spines, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .training import GroupHistory

_GROUPS, _OPEN, _CLOSED = '#1f7a8c', '#e6550d', '#8d99ae'
#: Layers side by side in the figure of the learning dynamics.
_COLUMNS = 8


def plot_group_numbers(history: 'GroupHistory', record: int = -1) -> 'Figure':
    """Draw the number of groups of each layer at one record, from the network's input to its output (Figure 5)."""
    numbers = history.group_numbers()[record]
    figure = new_figure(max(4., 1.2 + 0.36 * len(numbers)), 3.4)
    axes = figure.subplots()
    places = np.arange(len(numbers))
    bars = axes.bar(places, numbers, color=_GROUPS, width=.75)
    axes.bar_label(bars, fontsize=7, padding=1)
    _scale_groups(axes, max(history.channels.values()))
    axes.set_xticks(places, list(history.channels.values()), rotation=90, fontsize=8)
    axes.set(xlabel='channels of the layers, from input to output', ylabel='groups', xlim=(-.6, len(numbers) - .4))
    axes.set_title(f'groups after {history.iterations[record]} iterations', fontsize=10, loc='left')
    return figure


def plot_learning_dynamics(history: 'GroupHistory') -> 'Figure':
    """Draw each layer's number of groups (above) and real gates (below) over the iterations (Figure 6).

    A gate's line changes color where it crosses 0: open from 0 up, closed below. Gates start at 1e-8, so their axis is linear.
    """
    names = list(history.channels)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(1.9 * columns + .6, 3.2 * rows + .3)
    cells = figure.subplots(2 * rows, columns, sharex=True, squeeze=False)
    numbers = np.array(history.group_numbers())
    for index, name in enumerate(names):
        row, column = divmod(index, columns)
        above, below = cells[2 * row, column], cells[2 * row + 1, column]
        above.step(history.iterations, numbers[:, index], where='post', color=_GROUPS, linewidth=1.2, **_markers(history))
        _scale_groups(above, history.channels[name])
        above.set_title(f'{_short(name)}, {history.channels[name]} channels', fontsize=7)
        _draw_gates(below, history.iterations, np.array([layers[index] for layers in history.gates]), **_markers(history))
        if column == 0:
            above.set_ylabel('groups', fontsize=8)
            below.set_ylabel('gates', fontsize=8)
        if row == rows - 1:
            below.set_xlabel('iteration', fontsize=8)
    for unused in range(len(names), rows * columns):
        for half in (0, 1):
            cells[2 * (unused // columns) + half, unused % columns].set_axis_off()
    for axes in cells.flat:
        axes.tick_params(labelsize=6)
    return figure


def _draw_gates(axes: 'Axes', iterations: list[int], gates: np.ndarray, **markers) -> None:
    """Draw the gates, shape (records, K), as lines in two colors."""
    for gate in gates.T:
        times, values = _insert_crossings(np.array(iterations, float), gate)
        axes.plot(times, np.where(values >= 0, values, np.nan), color=_OPEN, linewidth=.9, **markers)
        axes.plot(times, np.where(values <= 0, values, np.nan), color=_CLOSED, linewidth=.9, zorder=1.9, **markers)
    axes.axhline(0, color='.3', linewidth=.6)
    hide_spines(axes)


def _insert_crossings(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Insert a point wherever the line crosses 0, so that its parts above and below 0 meet.

    Example:
        >>> _insert_crossings(np.array([0., 10., 20.]), np.array([1., -3., -2.]))
        (array([ 0. ,  2.5, 10. , 20. ]), array([ 1.,  0., -3., -2.]))
    """
    before, after = values[:-1], values[1:]
    places, = np.nonzero(np.sign(before) * np.sign(after) < 0)
    fractions = before[places] / (before[places] - after[places])
    crossings = times[places] + fractions * (times[places + 1] - times[places])
    return np.insert(times, places + 1, crossings), np.insert(values, places + 1, 0.)


def _markers(history: 'GroupHistory') -> dict[str, object]:
    """Return markers for a history with a single record, which has no lines."""
    return {'marker': 'o', 'markersize': 2.5} if len(history.iterations) == 1 else {}


def _scale_groups(axes: 'Axes', largest: int) -> None:
    """Scale the vertical axis logarithmically, with ticks at powers of two up to `largest`."""
    axes.set_yscale('log', base=2)
    axes.set_ylim(2**-.5, largest * 1.6)
    ticks = [2**power for power in range(0, largest.bit_length(), 1 if largest <= 32 else 2)]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis='y', color='.9', linewidth=.6)
    axes.set_axisbelow(True)
    hide_spines(axes)


def _short(name: str) -> str:
    """Shorten a layer's name: backbone.layer1.0.grouped.conv becomes layer1.0."""
    return name.removeprefix('backbone.').removesuffix('.conv').removesuffix('.grouped')
