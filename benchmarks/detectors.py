"""Mask R-CNN with tied backbones against ResNet's: seconds of a training step and of an inference, and the backbone's share.

The detectors are those of the repository's configs, on images, boxes and masks made here (see `detection_samples`). A step starts
from uint8 images and ends with new weights, or with boxes and pasted masks. All detectors take turns; the backbone alone,
forward or forward and backward, is timed in the same turns.

    python benchmarks/detectors.py --docs docs/benchmarks.md
"""

import argparse
import sys

import torch
from detection_samples import make_batch
from detector_steps import DETECTORS, DetectorSteps, build_detector
from interleaved import Spread, Times, time_in_turns
from ratio_bars import draw_ratios
from report_section import markdown_table
from speed_options import FORMATS, add_options, apply_options, image_size, picture_path, report

from mmtied.cli import user_errors

_HEADER = ['backbone', 'seconds', 'times its baseline', 'backbone alone, s', 'times its baseline', "backbone's share"]


def main() -> None:
    """Run the benchmark, print its tables and write its section."""
    args = parse_arguments()
    with user_errors():
        apply_options(args)
        on_cpu = torch.device(args.device).type == 'cpu'
        if args.quick:
            args.size, args.batch = [64, 96], 1
        size = image_size(args.size or ([320, 544] if on_cpu else [800, 1344]))
        batch = args.batch or (1 if on_cpu else 2)
        if batch < 1:
            raise ValueError(f'--batch {batch}: expected 1 or more')
        names = list(dict.fromkeys(name for chosen in args.networks for name in (DETECTORS[chosen][1], chosen)))
        steps = {}
        for name in names:
            print(name, file=sys.stderr, flush=True)
            detector = build_detector(name, args.fine_tuning, args.quick).to(args.device)
            steps[name] = DetectorSteps(detector, make_batch(batch, size), FORMATS[args.format])
        parts, ratios = [], {}
        for mode in ('training', 'inference'):
            calls = {key(name, part): call for name in names for part, call in getattr(steps[name], mode)().items()}
            times = time_in_turns(calls, args.repeats, device=args.device, least_seconds=args.least_ms / 1e3,
                                  warmups=1 if args.quick else 2)
            heading = 'Training step:' if mode == 'training' else (
                f'Inference, {min(step.detections for step in steps.values())} to '
                f'{max(step.detections for step in steps.values())} detections:')
            parts.append(f'{heading}\n\n{markdown_table(_HEADER, [row(times, name) for name in names])}')
            for name in names:
                if DETECTORS[name][1] != name:
                    ratios.setdefault(name, {})[mode] = times.ratio(key(DETECTORS[name][1]), to=key(name))
        if args.docs:
            draw_ratios(ratios, 'times as fast as the baseline', picture_path(args, 'detectors'))
        training = ('as mmdet fine-tunes a backbone: its stem and first stage stay, and so does its BatchNorm'
                    if args.fine_tuning else 'all of it trains, BatchNorm in training mode')
        report(args, 'detectors', 'Mask R-CNN', [
            f'{batch} images of {size[0]} x {size[1]}, float32, {args.format}; {training}. Medians of {args.repeats} turns, '
            'lowest to highest in brackets. A ratio is of seconds within one turn.', *parts],
            'Speed of Mask R-CNN with tied backbones as multiples of that with ResNet')


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    tied = [name for name, (_, baseline) in DETECTORS.items() if name != baseline]
    parser.add_argument('--networks', nargs='+', choices=tied, default=['TiedResNet-50', 'TiedResNet-50-S'], metavar='NAME',
                        help=f'tied ones, each of which brings its baseline along: {", ".join(tied)}')
    parser.add_argument('--batch', type=int, help='images; 1 on a CPU and 2 on a GPU if left out')
    parser.add_argument('--size', nargs='+', type=int,
                        help='height and width; 320 544 on a CPU and 800 1344 on a GPU if left out')
    parser.add_argument('--format', choices=list(FORMATS), default='contiguous')
    parser.add_argument('--fine-tuning', action='store_true', help='freeze the first stage and BatchNorm of every backbone')
    return parser.parse_args()


def key(name: str, part: str = 'whole') -> str:
    """Name of a detector's call among all contenders."""
    return f'{name}, {part}'


def row(times: Times, name: str) -> list[str]:
    """One row of a table."""
    baseline = DETECTORS[name][1]

    def cells(part: str) -> list[str]:
        ratio: Spread = times.ratio(key(name, part), to=key(baseline, part))
        return [times.spread(key(name, part)).text(3), ratio.text()]

    share = times.ratio(key(name, 'backbone'), to=key(name)).median
    return [name, *cells('whole'), *cells('backbone'), f'{share:.0%}']


if __name__ == '__main__':
    main()
