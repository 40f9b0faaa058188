"""A bar plot of ratios to baselines."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
from interleaved import Spread
from small_picture import save_picture

_COLOURS = ('#1f7a8c', '#8ecae6', '#e07a5f', '#f2cc8f')


def draw_ratios(ratios: Mapping[str, Mapping[str, Spread]], label: str, path: Path) -> None:
    """Draw ratios by name (a place on the axis) and series (a colour); a line at 1 is the baseline, thin lines the spread."""
    series = list(dict.fromkeys(name for row in ratios.values() for name in row))
    width = .8 / len(series)
    figure, axes = plt.subplots(figsize=(max(5., 1.1 * len(ratios) + 1), 3.4))
    for number, name in enumerate(series):
        places = [place for place, row in enumerate(ratios.values()) if name in row]
        spreads = [row[name] for row in ratios.values() if name in row]
        medians = [spread.median for spread in spreads]
        errors = [[median - spread.lowest for median, spread in zip(medians, spreads, strict=True)],
                  [spread.highest - median for median, spread in zip(medians, spreads, strict=True)]]
        left = [place + (number - (len(series) - 1) / 2) * width for place in places]
        axes.bar(left, medians, width, yerr=errors, label=name, color=_COLOURS[number % len(_COLOURS)],
                 error_kw=dict(linewidth=.8, ecolor='#4a4e69'))
    axes.axhline(1, color='#22223b', linewidth=1)
    axes.set_xticks(range(len(ratios)), list(ratios), rotation=25, ha='right', fontsize=8)
    axes.tick_params(axis='y', labelsize=8)
    axes.set_ylabel(label, fontsize=8)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc='lower center', bbox_to_anchor=(.5, 1))  # above, where no bar is
    figure.tight_layout()
    save_picture(figure, path)
