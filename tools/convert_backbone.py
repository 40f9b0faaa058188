#!/usr/bin/env python
"""Make a trained classifier's backbone a detector's: tools/train.py DETECTOR_CONFIG --backbone-checkpoint OUT."""

import argparse

from mmtied.cli import user_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('classifier', help='checkpoint that tools/train.py wrote for a config in configs/imagenet')
    parser.add_argument('out', help="file for the backbone's weights; one that exists is replaced")
    return parser.parse_args()


def main() -> None:
    """Convert, and say what was kept and dropped."""
    with user_errors():
        args = parse_args()
        from mmtied.launch.convert import convert_backbone
        conversion = convert_backbone(args.classifier, args.out)
        weights, dropped = conversion.weights, conversion.dropped
        millions = sum(value.numel() for value in weights.values()) / 1e6
        print(f'{args.out}: kept {len(weights)} tensors of the backbone, {millions:.2f}M values')
        print(f'dropped {len(dropped)} tensors of {args.classifier}: {", ".join(dropped) or "none"}')


if __name__ == '__main__':
    main()
