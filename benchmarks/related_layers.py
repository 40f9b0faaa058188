"""Compare IGC, DGConv, SharedBasisConv and SumFusion with their plain PyTorch compositions at the papers' shapes.

A plain composition applies the paper's equations one by one with PyTorch's own layers and the same weights. Both run in turns. On
a CPU the benchmark compares CPU time, so use one thread.

    python benchmarks/related_layers.py --threads 1 --csv docs/benchmarks/related_layers_cpu.csv
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from reporting import FORMATS, add_timing_options, apply_options, report
from timing import Times, time_in_turns
from torch import Tensor, nn

from mmtied.cli import user_errors
from mmtied.layers import IGC, DGConv, FilterBasis, SharedBasisConv, SumFusion


class Case(NamedTuple):
    """A layer, its plain composition, and the shape of its input without the batch."""

    name: str
    layer: nn.Module
    plain: Callable[[Tensor], Tensor]
    shape: tuple[int, int, int]


def make_cases(name: str) -> Iterator[Case]:
    """Yield the layers whose name contains `name`, one for each stage of the papers' networks."""
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
        return F.channel_shuffle(F.conv2d(x, layer.secondary.weight, groups=layer.num_secondary), layer.num_secondary)

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


def measure(args: argparse.Namespace, case: Case) -> Iterator[dict[str, object]]:
    """Yield a row per dtype, format and pass: the layer's time divided by the plain composition's."""
    images = 1 if args.quick else args.batch
    for dtype_name, dtype in (('float32', torch.float32), ('bfloat16', torch.bfloat16)):
        for format_name, memory_format in FORMATS.items():
            layer = case.layer.to(args.device, dtype, memory_format=memory_format)
            x = torch.rand(images, *case.shape, device=args.device).to(dtype=dtype, memory_format=memory_format)
            torch.testing.assert_close(layer(x), case.plain(x), rtol=0.1, atol=0.1)
            for train in (False, True):
                times = time_both(args, case, x.requires_grad_(train))
                ratio = times.ratio('layer', to='plain')
                yield {'layer': case.name, 'input': ' x '.join(map(str, x.shape)), 'dtype': dtype_name, 'format': format_name,
                       'step': 'forward + backward' if train else 'forward', 'times plain': f'{ratio.median:.2f}',
                       'lowest': f'{ratio.lowest:.2f}', 'highest': f'{ratio.highest:.2f}'}


def time_both(args: argparse.Namespace, case: Case, x: Tensor) -> Times:
    """Time the layer and its plain composition in turns, with backward where `x` requires a gradient."""

    def call(function: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            with torch.set_grad_enabled(x.requires_grad):
                out = function(x)
            if x.requires_grad:
                torch.autograd.grad(out, [x, *case.layer.parameters()], out.detach(), allow_unused=True)
        return run

    clock = time.process_time if torch.device(args.device).type == 'cpu' else time.perf_counter
    return time_in_turns({'layer': call(case.layer), 'plain': call(case.plain)}, args.repeats, device=args.device,
                         least_seconds=args.least_ms / 1e3, clock=clock)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_timing_options(parser)
    parser.add_argument('--layer', default='', help='time only layers whose name contains this')
    parser.add_argument('--batch', type=int, default=4)
    args = parser.parse_args()
    with user_errors():
        apply_options(args)
        rows = [row for case in make_cases(args.layer) for row in measure(args, case)]
        if not rows:
            raise ValueError(f'--layer {args.layer}: no layer name contains this')
        report(args, f"Time of a layer divided by its plain composition's: {args.batch} images, medians of {args.repeats} turns.",
               rows)


if __name__ == '__main__':
    main()
