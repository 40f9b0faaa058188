#!/usr/bin/env python
"""Convert a trained classifier into weights for a detector's backbone.

    mmtied convert classifier.pth backbone.pth
    mmtied train DETECTOR_CONFIG --backbone-checkpoint backbone.pth

Also reads the ImageNet checkpoints released by the authors of shared filter bases: ResNet34-S48U1, ResNet50-Shared and -Shared++,
ResNet101-Shared, MobileNetV2-Shared and -Shared++ (linked from https://github.com/ssregibility/Net_RL2).
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.cli import add_trust

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('classifier', help='checkpoint written by `mmtied train` for a config in configs/imagenet, or a '
                        'released one')
    parser.add_argument('out', help="file for the backbone's weights; an existing file is replaced")
    parser.add_argument('--keep-head', action='store_true',
                        help='write the whole classifier, for `mmtied test` with its config')
    add_trust(parser)
    return parser.parse_args()


def main() -> None:
    """Convert, and print the tensors kept and dropped."""
    args = parse_args()
    from mmtied.cli import user_errors
    from mmtied.unpickling import safe_loading
    with user_errors(), safe_loading(args.trust_checkpoint):
        from mmtied.launch.convert import convert_backbone
        done = convert_backbone(args.classifier, args.out, args.keep_head)
        weights = [value for key, value in done.kept.items() if not key.endswith('num_batches_tracked')]
        millions = sum(value.numel() for value in weights) / 1e6
        if done.backbone:
            print(f'{args.classifier}: released weights, for backbone=dict('
                  f'{", ".join(f"{key}={value!r}" for key, value in done.backbone.items())})')
        part = 'classifier' if args.keep_head else 'backbone'
        print(f'{args.out}: kept {len(weights)} tensors of the {part}, {millions:.2f}M values')
        print(f'dropped {len(done.dropped)} tensors of {args.classifier}: {", ".join(done.dropped) or "none"}')


if __name__ == '__main__':
    main()
