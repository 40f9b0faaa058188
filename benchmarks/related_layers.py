"""IGC, DGConv, SharedBasisConv and SumFusion beside their plain PyTorch compositions, at the shapes of the papers' networks.

A plain composition does what the paper's equations say with PyTorch's own layers, one after another, on the same weights. Both
are run in turn; of each the fastest round counts, since other jobs only ever add time. On a CPU what counts is CPU time: measure
with one thread (OMP_NUM_THREADS=1).

    python benchmarks/related_layers.py --docs docs/benchmarks.md
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from machine import describe_machine
from report_section import markdown_table, write_section
from torch import Tensor, nn

from mmtied.layers import IGC, DGConv, FilterBasis, SharedBasisConv, SumFusion

FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
_HEADER = ['layer', 'size', *(f'{dtype} {memory_format}, {step}' for dtype in DTYPES for memory_format in FORMATS
                              for step in ('forward', 'both'))]


class Case(NamedTuple):
    """A layer, the function that computes the same plainly, and the shape of its input without the batch."""

    name: str
    layer: nn.Module
    plain: Callable[[Tensor], Tensor]
    shape: tuple[int, int, int]


def make_cases(name: str) -> Iterator[Case]:
    """The layers whose name contains `name`; stages of the papers' networks."""
    makers = {
        'IGC-L24M2': [(_igc, 48 * 2**i, 32 // 2**i, {'num_primary': 24}) for i in range(3)],
        'IGC-L4M8': [(_igc, 32 * 2**i, 32 // 2**i, {'num_primary': 4}) for i in range(3)],
        'IGC-L4M32': [(_igc, 128 * 2**i, 56 // 2**i, {'num_primary': 4}) for i in range(4)],
        'IGC-L16M16': [(_igc, 256 * 2**i, 56 // 2**i, {'num_primary': 16}) for i in range(4)],
        'IGC-L100M2': [(_igc, 200 * 2**i, 56 // 2**i, {'num_secondary': 2}) for i in range(4)],
        'SumFusion': [(_sum_fusion, 8 * 2**i, 32 // 2**i, {'num_branches': 4}) for i in range(3)],
        'DGConv': [(_dgconv, 128 * 2**i, 56 // 2**i, {}) for i in range(4)],
        'SharedBasisConv-S48U1': [(_shared, 64 * 2**i, 56 // 2**i, {'shared': 48 * 2**i, 'unique': 2**i}) for i in range(4)],
    }
    for key, rows in makers.items():
        if name.lower() in key.lower():
            for make, channels, size, settings in rows:
                layer, plain = make(channels, **settings)
                yield Case(key, layer, plain, (channels, size, size))


def _igc(channels: int, **settings: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    layer = IGC(channels, channels, 3, padding=1, bias=False, **settings)

    def plain(x: Tensor) -> Tensor:
        x = F.channel_shuffle(layer.primary(x), layer.num_primary)
        return F.channel_shuffle(layer.secondary(x), layer.num_secondary)

    return layer, plain


def _sum_fusion(channels: int, num_branches: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    layer = SumFusion(channels, channels, 3, padding=1, bias=False, num_branches=num_branches)
    return layer, lambda x: sum(F.conv2d(x, branch, padding=1) for branch in layer.weight.chunk(num_branches))


def _dgconv(channels: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    layer = DGConv(channels, channels, 3, padding=1, bias=False)

    def plain(x: Tensor) -> Tensor:
        binary = (layer.gates >= 0).to(x.dtype)
        gates = layer.gates + (binary - layer.gates).detach()  # the sign function's gradient, straight through
        ones, identity, gates = torch.ones(2, 2, dtype=x.dtype), torch.eye(2, dtype=x.dtype), gates[:, None, None]
        factors = gates * ones + (1 - gates) * identity  # Eq. 5
        return F.conv2d(x, layer.weight * reduce(torch.kron, factors)[:, :, None, None], padding=1)

    return layer, plain


def _shared(channels: int, shared: int, unique: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    layer = SharedBasisConv(channels, channels, 3, padding=1, bias=False, filters=FilterBasis(channels, shared, 3),
                            num_unique=unique)
    layer.register_module('basis', layer.filters)

    def plain(x: Tensor) -> Tensor:
        parts = [F.conv2d(x, conv.weight, padding=1) for conv in (layer.filters, layer.unique)]
        return layer.coefficients(torch.cat(parts, dim=1))

    return layer, plain


def measure(case: Case, images: int, rounds: int) -> list[str]:
    """A row: how many times as long as the plain composition the layer takes, in each setting."""
    row = [case.name, ' x '.join(map(str, (images, *case.shape)))]
    for dtype in DTYPES.values():
        for memory_format in FORMATS.values():
            layer = case.layer.to(dtype=dtype, memory_format=memory_format)
            x = torch.rand(images, *case.shape).to(dtype=dtype, memory_format=memory_format)
            torch.testing.assert_close(layer(x), case.plain(x), rtol=0.1, atol=0.1)
            for train in (False, True):
                ours, plain = time_in_turn([layer, case.plain], layer, x, train, rounds)
                row.append(f'{ours / plain:.2f}')
    return row


def time_in_turn(functions: list[Callable[[Tensor], Tensor]], layer: nn.Module, x: Tensor, train: bool,
                 rounds: int) -> list[float]:
    """CPU seconds of the fastest round of each function."""
    best = [float('inf')] * len(functions)
    x = x.requires_grad_(train)
    with torch.set_grad_enabled(train):
        for number in range(rounds + 1):
            for index, function in enumerate(functions):
                layer.zero_grad()
                x.grad = None
                start = time.process_time()
                out = function(x)
                if train:
                    out.backward(out.detach())
                if number:  # the first round is a warm-up
                    best[index] = min(best[index], time.process_time() - start)
    return best


def main() -> None:
    """Time, print, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--layer', default='', help='only layers whose name contains this')
    parser.add_argument('--images', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--docs', type=Path, help='page to write the section into')
    parser.add_argument('--note', default='', help='a sentence about the conditions')
    args = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for case in make_cases(args.layer):
        rows.append(measure(case, args.images, args.rounds))
        print(*rows[-1], flush=True)
    text = ('CPU time of the layer divided by that of its plain composition: below 1 the layer is faster. The fastest of '
            f'{args.rounds} rounds of each, in turn; "both" is forward and backward.')
    text = '\n\n'.join([text, markdown_table(_HEADER, rows), describe_machine(('torch', 'mmtied'))
                        + (f' {args.note}' if args.note else '')])
    if args.docs:
        write_section(args.docs, 'related layers cpu', f'## Layers of the related systems\n\n{text}')


if __name__ == '__main__':
    main()
