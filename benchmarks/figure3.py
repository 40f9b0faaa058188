"""Figure 3 of tied block convolution: the time of TBC and of grouped convolution over B, at the same number of multiply-adds.

Wang & Yu, AAAI 2021, https://arxiv.org/abs/2009.12021: the input is 56 x 56 x 2048, and "the total FLOPs at these values were
fixed by changing the total filter number". A convolution of B blocks makes ``C_in * C_out * k * k / B`` multiply-adds for a
pixel, and C_in is given, so C_out = f * B: each block meets f filters of C_in / B channels, whatever B is. At B = 1 that is a
standard convolution with f filters. The paper prints neither f nor k; f = 64 ends at 2048 output channels for B = 32. So the
input to be read is the same for every B, and the output to be written grows with it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from interleaved import Times
from layer_timing import PASSES, Setting, time_layers
from plain_ways import OURS, UNTIED, FoldIntoBatch, untied
from report_section import markdown_table
from small_picture import save_picture
from torch import nn

from mmtied.layers import TBC
from mmtied.layers.blocks import check_blocks

STANDARD, AUTHORS = 'standard', "authors' TBC"
_COLOURS = {OURS: '#1f7a8c', AUTHORS: '#e07a5f', UNTIED: '#6d597a', STANDARD: '#8d99ae'}
#: (kernel size, memory format, pass) of a panel.
Panel = tuple[int, str, str]


def contenders(channels: int, filters: int, kernel: int, block_numbers: Sequence[int]) -> dict[str, nn.Module]:
    """Every way at every B, by `key`; the standard convolution once, for B = 1, where the others compute the same.

    Raises:
        ValueError: Channels that a B does not divide.
    """
    settings = dict(kernel_size=kernel, padding=kernel // 2, bias=False)
    layers: dict[str, nn.Module] = {key(STANDARD, 1): nn.Conv2d(channels, filters, **settings)}
    for blocks in block_numbers:
        check_blocks('Figure 3', 'channels', channels, blocks)
        layer = TBC(channels, filters * blocks, num_blocks=blocks, **settings)
        layers |= {key(OURS, blocks): layer, key(AUTHORS, blocks): FoldIntoBatch(layer), key(UNTIED, blocks): untied(layer)}
    return layers


def key(way: str, blocks: int) -> str:
    """Name of a way at B among all contenders."""
    return f'{way} at B = {blocks}'


def measure(shape: tuple[int, ...], filters: int, kernel: int, block_numbers: Sequence[int], settings: Mapping[str, Setting],
            passes: Sequence[str] = PASSES) -> dict[Panel, Times]:
    """Time everything for one kernel size, all B in the same turns, for each memory format and pass."""
    return {(kernel, name, which): time_layers(contenders(shape[1], filters, kernel, block_numbers), shape, which, setting)
            for name, setting in settings.items() for which in passes}


def table(results: Mapping[Panel, Times], block_numbers: Sequence[int]) -> str:
    """Milliseconds and ratios, one row for each panel and B, as Markdown."""
    rows = []
    for (kernel, name, which), times in results.items():
        for blocks in block_numbers:
            ours = key(OURS, blocks)
            rows.append([f'{kernel}x{kernel}, {name}, {which}', str(blocks), times.spread(ours, 1e3).text(),
                         times.ratio(ours, to=key(OURS, block_numbers[0])).text(),
                         *(times.ratio(key(way, blocks), to=ours).text() for way in (UNTIED, AUTHORS)),
                         times.ratio(key(STANDARD, 1), to=ours).text()])
    return markdown_table(['kernel, format, pass', 'B', 'TBC, ms', f'to its own at B = {block_numbers[0]}',
                           'grouped G = B / TBC', "authors' / TBC", 'standard / TBC'], rows)


def draw(results: Mapping[Panel, Times], block_numbers: Sequence[int], path: Path) -> None:
    """Plot milliseconds over B, a row of panels for each kernel size, and write the picture."""
    kernels = list(dict.fromkeys(panel[0] for panel in results))
    columns = list(dict.fromkeys(panel[1:] for panel in results))
    figure, grid = plt.subplots(len(kernels), len(columns), figsize=(3.1 * len(columns), 2.6 * len(kernels)), squeeze=False,
                                sharex=True)
    for (kernel, *column), times in results.items():
        axes = grid[kernels.index(kernel), columns.index(tuple(column))]
        axes.axhline(times.spread(key(STANDARD, 1), 1e3).median, color=_COLOURS[STANDARD], linestyle='--', linewidth=1,
                     label=STANDARD)
        for way in (UNTIED, AUTHORS, OURS):
            spreads = [times.spread(key(way, blocks), 1e3) for blocks in block_numbers]
            axes.fill_between(block_numbers, [spread.lowest for spread in spreads], [spread.highest for spread in spreads],
                              color=_COLOURS[way], alpha=.15, linewidth=0)
            axes.plot(block_numbers, [spread.median for spread in spreads], marker='o', markersize=3, linewidth=1.4,
                      color=_COLOURS[way], label=way)
        axes.set_title(f'{kernel}×{kernel}, {column[0]}\n{column[1]}', fontsize=8)
        axes.set_xscale('log', base=2)
        axes.set_xticks(list(block_numbers), [str(blocks) for blocks in block_numbers])
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
    for axes in grid[-1]:
        axes.set_xlabel('B', fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel('ms', fontsize=8)
    grid[0, 0].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    save_picture(figure, path)
