"""How near blocks of TiedResNet-50 and ResNet-50 come to what the machine could do: floors from arithmetic and traffic.

The machine's peak is the best of some matrix products, its bandwidth the best of some copies of tensors as large as a block's.
A block's arithmetic is the multiply-adds of its convolutions. Its traffic is what each of its layers must at least read and write
when layers run one after the other: in inference, input, output and weights of each convolution, and the addition, with all else
folded into the convolutions. In training a convolution runs three times (output, gradient of input, gradient of weight), and
normalisation, activation and addition pass over their activations as `TRAINING_PASSES` says. The floor is the sum over layers of
the larger of the two times.

    python benchmarks/floors.py --docs docs/benchmarks.md
"""

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from interleaved import time_in_turns
from network_pairs import build
from report_section import markdown_table
from speed_options import DTYPES, FORMATS, add_options, apply_options, image_size, report
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.cli import user_errors

NETWORKS = ('ResNet-50', 'TiedResNet-50', 'TiedResNet-50-S')
#: How often a training step passes over an activation. Normalisation: read twice and written once forward, its input and its
#: gradient read twice and written once backward. Activation: 2 and 3. Addition: 3, and 3 where two gradients meet.
TRAINING_PASSES = {_BatchNorm: 8, nn.ReLU: 5, 'addition': 6}
_BYTES = 4


class Cost(NamedTuple):
    """Multiply-adds of a layer, and bytes that it moves in inference and in a training step."""

    macs: int
    moved: int
    moved_in_training: int


def main() -> None:
    """Run the benchmark, print its table and write its section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--size', nargs='+', type=int, default=[224], help='side of the images, or height and width')
    parser.add_argument('--format', choices=list(FORMATS), default='channels_last', dest='layout')
    parser.add_argument('--dtype', choices=list(DTYPES)[:1], default='float32')
    args = parser.parse_args()
    with user_errors():
        apply_options(args)
        height, width = image_size([32] if args.quick else args.size)
        peak, bandwidth = machine_limits(args)
        images = torch.randn(args.batch, 3, height, width, device=args.device)
        rows = [row for name in NETWORKS for row in block_rows(name, images, args, peak, bandwidth)]
        header = ['network, second block of', 'multiply-adds, M', 'MB moved', 'floor, ms', 'inference, ms', 'times floor',
                  'training floor, ms', 'training, ms', 'times floor']
        text = (f'{args.batch} images of {height} x {width}, {args.layout}. Peak {peak / 1e9:.0f} G multiply-adds a second, '
                f'{bandwidth / 1e9:.0f} GB read and written a second. Medians of {args.repeats} turns.')
        report(args, 'floors', 'Floors', [text, markdown_table(header, rows)])


def machine_limits(args: argparse.Namespace) -> tuple[float, float]:
    """Multiply-adds a second of the best matrix product, and bytes a second of the best copy."""
    side = 64 if args.quick else 2048
    left, right = torch.randn(2, side, side, device=args.device)
    source = torch.randn((1 if args.quick else 13) * 2**18, device=args.device)
    target = torch.empty_like(source)
    times = time_in_turns({'product': lambda: left @ right, 'copy': lambda: target.copy_(source)}, 3 * args.repeats,
                          device=args.device, least_seconds=args.least_ms / 1e3)
    return side**3 / times.spread('product').lowest, 2 * _BYTES * source.numel() / times.spread('copy').lowest


def block_rows(name: str, images: Tensor, args: argparse.Namespace, peak: float, bandwidth: float) -> Iterator[list[str]]:
    """A row for the second block of each stage of a network."""
    network = build(name).to(args.device, memory_format=FORMATS[args.layout])
    network.eval()
    for stage in range(1, 5):
        block = getattr(network, f'layer{stage}')[1]
        x = input_of(block, network, images).contiguous(memory_format=FORMATS[args.layout])
        layers = layer_costs(block, x)
        runs = {'inference': inference(block, x), 'training': training(block, x)}
        cells = []
        floors = {'inference': sum(max(layer.macs / peak, layer.moved / bandwidth) for layer in layers),
                  'training': sum(max(3 * layer.macs / peak, layer.moved_in_training / bandwidth) for layer in layers)}
        for step, floor in floors.items():
            block.train(step == 'training')
            took = time_in_turns({step: runs[step]}, args.repeats, device=args.device, least_seconds=args.least_ms / 1e3)
            seconds = took.spread(step).median
            cells += [f'{1e3 * floor:.2f}', f'{1e3 * seconds:.2f}', f'{seconds / floor:.2f}']
        macs, moved = sum(layer.macs for layer in layers), sum(layer.moved for layer in layers)
        yield [f'{name}, layer{stage}', f'{macs / 1e6:.0f}', f'{moved / 1e6:.1f}', *cells]


def input_of(block: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    """What a block of a network gets."""
    seen = []
    with block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])), torch.no_grad():
        network(images)
    return seen[0]


def layer_costs(block: nn.Module, x: Tensor) -> list[Cost]:
    """What each layer of a block costs for an input."""
    costs = []

    def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        size = _BYTES * output.numel()
        if isinstance(layer, nn.Conv2d):
            weights = layer.weight[0].numel()  # of one output channel, tied or not
            moved = _BYTES * (inputs[0].numel() + layer.weight.numel()) + size
            costs.append(Cost(output.numel() * weights, moved, 3 * moved))
        else:
            costs.append(Cost(0, 0, size * TRAINING_PASSES[nn.ReLU if isinstance(layer, nn.ReLU) else _BatchNorm]))

    kinds = (nn.Conv2d, _BatchNorm, nn.ReLU)
    handles = [layer.register_forward_hook(note) for layer in block.modules() if isinstance(layer, kinds)]
    with torch.no_grad():
        size = _BYTES * block(x).numel()
    for handle in handles:
        handle.remove()
    return [*costs, Cost(0, 3 * size, size * TRAINING_PASSES['addition'])]


def inference(block: nn.Module, x: Tensor) -> Callable[[], None]:
    """A call of the block without gradients."""

    def call() -> None:
        with torch.no_grad():
            block(x)

    return call


def training(block: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward of the block."""
    x = x.detach().requires_grad_()
    gradient = torch.randn_like(x)
    inputs = [x, *block.parameters()]
    return lambda: torch.autograd.grad(block(x), inputs, gradient)


if __name__ == '__main__':
    main()
