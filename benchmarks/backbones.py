"""Time every tied backbone against its untied baseline, in inference and training, and count peak memory.

A training step is forward, backward of the outputs' sum, and SGD with momentum; everything trains and BatchNorm uses batch
statistics. All networks of one baseline take turns. Ratios are to the baseline in the same form (plain, deployed, or deployed
and compiled) and memory format, then to the baseline as mmdet or mmpretrain runs it in that format. Peak memory counts weights,
gradients, momentum, activations and workspaces, not the images.

``--compile`` times training of ``torch.compile(network)``, and inference of ``torch.compile(deploy(network))`` with
``torch._inductor.config.freezing`` on, which lets the inductor repack the constant weights; ``--no-freezing`` turns it off.
docs/deploy.md shows users the same lines. ``--cuda-graphs`` replays whole steps without launching kernels from Python.

    python benchmarks/backbones.py --csv docs/benchmarks/backbones_cpu.csv
    python benchmarks/backbones.py --networks TiedResNet-50 TiedResNet-50-S --steps inference --deploy --compile
    python benchmarks/backbones.py --networks TiedResNet-50 TiedResNet-50-S --steps training --with-cp
    python benchmarks/backbones.py --networks TiedResNet-50 --device cuda --dtype bfloat16 --cuda-graphs
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from reporting import DTYPES, FORMATS, add_timing_options, apply_options, image_size, report
from timing import MIB, Runner, Spread, Times, time_in_turns
from torch import nn

from mmtied.cli import user_errors
from mmtied.compat import require
from mmtied.surgery import deploy

#: Settings of each backbone; norm_eval=False because mmdet's default keeps BatchNorm in evaluation mode.
NETWORKS: dict[str, dict] = {
    'ResNet-50': dict(type='mmdet.ResNet', depth=50, norm_eval=False),
    'TiedResNet-50': dict(type='mmtied.TiedResNet', depth=50),
    'TiedResNet-50-S': dict(type='mmtied.TiedResNet', depth=50, base_width=18),
    'ResNet-101': dict(type='mmdet.ResNet', depth=101, norm_eval=False),
    'TiedResNet-101': dict(type='mmtied.TiedResNet', depth=101),
    'TiedResNet-101-S': dict(type='mmtied.TiedResNet', depth=101, base_width=18),
    'ResNeXt-50': dict(type='mmdet.ResNeXt', depth=50, groups=32, base_width=4, norm_eval=False),
    'TiedResNeXt-50': dict(type='mmtied.TiedResNeXt', depth=50),
    'TiedResNeXt-50-S': dict(type='mmtied.TiedResNeXt', depth=50, base_width=36),
    'SE-ResNet-50': dict(type='mmpretrain.SEResNet', depth=50, out_indices=(0, 1, 2, 3)),
    'TiedSENet-50': dict(type='mmtied.TiedSENet', depth=50),
    'TiedSENet-50-S': dict(type='mmtied.TiedSENet', depth=50, base_width=18),
    'ResNeSt-50': dict(type='mmdet.ResNeSt', depth=50, stem_channels=64, radix=2, reduction_factor=4, avg_down_stride=True,
                       norm_eval=False),
    'TiedResNeSt-50-S': dict(type='mmtied.TiedResNeSt', depth=50),
    'EfficientNet-B0': dict(type='mmpretrain.EfficientNet', arch='b0'),
    'TiedEfficientNet-B0': dict(type='mmtied.TiedEfficientNet', arch='b0'),
}
#: The untied baseline of each tied network.
BASELINES: dict[str, str] = {
    'TiedResNet-50': 'ResNet-50', 'TiedResNet-50-S': 'ResNet-50', 'TiedResNet-101': 'ResNet-101',
    'TiedResNet-101-S': 'ResNet-101', 'TiedResNeXt-50': 'ResNeXt-50', 'TiedResNeXt-50-S': 'ResNeXt-50',
    'TiedSENet-50': 'SE-ResNet-50', 'TiedSENet-50-S': 'SE-ResNet-50', 'TiedResNeSt-50-S': 'ResNeSt-50',
    'TiedEfficientNet-B0': 'EfficientNet-B0',
}
PLAIN, DEPLOYED = 'plain', 'deployed'
#: Name of the form "deployed and compiled", with freezing on and off.
COMPILED = {True: 'deployed, compiled with freezing', False: 'deployed, compiled'}
TRAINED_COMPILED = 'compiled'
GRAPHED = ', CUDA graph'
#: Recomputing forms of the training step; the baseline supports only the second.
CHECKPOINTED = {"with_cp='norm'": 'norm', 'with_cp=True': True}


def main() -> None:
    """Run the benchmark."""
    args = parse_arguments()
    with user_errors():
        apply_options(args)
        if args.quick:
            args.size, args.batch = [32], 2
        height, width = image_size(args.size)
        args.batch = args.batch or (4 if torch.device(args.device).type == 'cpu' else 64)
        if args.batch < 2:
            raise ValueError(f'--batch {args.batch}: must be 2 or more; BatchNorm cannot train on one value per channel')
        images = torch.randn(args.batch, 3, height, width, generator=torch.Generator().manual_seed(0)).to(args.device)
        if args.cuda_graphs and torch.device(args.device).type != 'cuda':
            raise ValueError(f'--cuda-graphs needs --device cuda; got --device {args.device}')
        baselines = dict.fromkeys(BASELINES[name] for name in args.networks)
        rows = (row for baseline in baselines
                for row in compare(args, [baseline, *(name for name in args.networks if BASELINES[name] == baseline)], images))
        title = f'{args.batch} images of {height} x {width}, {args.dtype}, medians of {args.repeats} turns.'
        report(args, title, rows)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_timing_options(parser)
    parser.add_argument('--networks', nargs='+', choices=list(BASELINES), default=list(BASELINES), metavar='NAME',
                        help=f'tied networks, each compared with its baseline: {", ".join(BASELINES)}')
    parser.add_argument('--batch', type=int, help='batch size (default: 4 on a CPU, 64 on a GPU)')
    parser.add_argument('--size', nargs='+', type=int, default=[224], help='side of the images, or height and width')
    parser.add_argument('--formats', nargs='+', choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument('--steps', nargs='+', choices=('inference', 'training'), default=['inference', 'training'])
    parser.add_argument('--dtype', choices=list(DTYPES), default='float32', help='bfloat16 and float16 enable autocast')
    parser.add_argument('--deploy', action='store_true', help='also time both sides after mmtied.surgery.deploy')
    parser.add_argument('--compile', action='store_true',
                        help='also time both sides compiled (deployed for inference); takes minutes')
    parser.add_argument('--no-freezing', action='store_true', help='compile without torch._inductor.config.freezing')
    parser.add_argument('--cuda-graphs', action='store_true', help='also time the plain and deployed networks as CUDA graphs')
    parser.add_argument('--with-cp', action='store_true', help="also train with with_cp='norm' and with_cp=True")
    return parser.parse_args()


def compare(args: argparse.Namespace, names: list[str], images: torch.Tensor) -> Iterator[dict[str, object]]:
    """Measure a baseline, the first of the names, and its tied networks."""
    runners: dict[tuple[str, str, str], Runner] = {}
    for name in names:
        for layout in args.formats:
            print(f'{name}, {layout}', file=sys.stderr, flush=True)
            for form, make in forms(args, name).items():
                network = make().to(args.device, memory_format=FORMATS[layout])
                given = images.to(memory_format=FORMATS[layout])
                runners[name, form, layout] = Runner(network, given, DTYPES[args.dtype])
                if args.cuda_graphs and form in (PLAIN, DEPLOYED):
                    runners[name, form + GRAPHED, layout] = Runner(network, given, DTYPES[args.dtype], graphed=True)
    for step in args.steps:
        chosen = {key: runner for key, runner in runners.items() if _belongs(key[1], step)}
        peaks = {}
        for key, runner in chosen.items():
            peaks[key] = runner.peak(getattr(runner, step))
            runner.network.zero_grad(set_to_none=True)
        calls = {' | '.join(key): getattr(runner, step)() for key, runner in chosen.items()}
        times = time_in_turns(calls, args.repeats, device=args.device, least_seconds=args.least_ms / 1e3)
        yield from (row(names[0], key, step, times, peaks, len(images)) for key in chosen)


def row(baseline: str, key: tuple[str, str, str], step: str, times: Times, peaks: dict[tuple[str, str, str], int],
        images: int) -> dict[str, object]:
    """Return one row: speed, ratios to the baseline in the same form and as it is, and peak memory."""
    name, form, layout = key
    same = (baseline, form if (baseline, form, layout) in peaks else PLAIN, layout)
    as_is = (baseline, PLAIN, layout)
    rate = times.rate(' | '.join(key), images)

    def speedup(other: tuple[str, str, str]) -> Spread:
        return times.ratio(' | '.join(other), to=' | '.join(key))

    return {'network': name, 'baseline': baseline, 'form': form, 'format': layout, 'step': step, 'images/s': f'{rate.median:.1f}',
            **_columns('same form', speedup(same)), **_columns('as it is', speedup(as_is)),
            'peak MiB': f'{peaks[key] / MIB:.0f}', 'peak, same form': f'{peaks[key] / peaks[same]:.2f}'}


def forms(args: argparse.Namespace, name: str) -> dict[str, Callable[[], nn.Module]]:
    """Return a builder for each requested form of a network."""
    made: dict[str, Callable[[], nn.Module]] = {PLAIN: lambda: build(name)}
    if args.deploy:
        made[DEPLOYED] = lambda: deploy(build(name))
    if args.compile:
        torch._inductor.config.freezing = not args.no_freezing
        if 'inference' in args.steps:
            made[COMPILED[not args.no_freezing]] = lambda: torch.compile(deploy(build(name)))
        if 'training' in args.steps:
            made[TRAINED_COMPILED] = lambda: torch.compile(build(name))
    if args.with_cp:
        for form, value in CHECKPOINTED.items():
            if name in BASELINES or value is True:
                made[form] = lambda value=value: build(name, with_cp=value)
    return made


def build(name: str, **settings: object) -> nn.Module:
    """Build a network with seeded random weights.

    Raises:
        ImportError: mmdet or mmpretrain is required and not installed.
    """
    quieten()
    config = dict(NETWORKS[name], **settings)
    package = config['type'].partition('.')[0]
    require(package, name)
    if config['type'] == 'mmdet.ResNet' and find_spec('mmcv._ext') is None:  # mmdet needs mmcv's operators, mmpretrain does not
        package, config = 'mmpretrain', dict(config, type='mmpretrain.ResNet', out_indices=(0, 1, 2, 3))
    import_module(package if package == 'mmtied' else f'{package}.models')
    torch.manual_seed(0)
    network = MODELS.build(config)
    network.init_weights()
    return network


@cache
def quieten() -> None:
    """Silence mmengine, which logs every initialized layer."""
    MMLogger.get_instance('benchmark', log_level=logging.ERROR)
    MMLogger.get_instance('mmengine', log_level=logging.ERROR)


def _belongs(form: str, step: str) -> bool:
    return form.removesuffix(GRAPHED) == PLAIN or (form in (*CHECKPOINTED, TRAINED_COMPILED)) == (step == 'training')


def _columns(title: str, ratio: Spread) -> dict[str, str]:
    return {f'times {title}': f'{ratio.median:.2f}', f'lowest, {title}': f'{ratio.lowest:.2f}',
            f'highest, {title}': f'{ratio.highest:.2f}'}


if __name__ == '__main__':
    main()
