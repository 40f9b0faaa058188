#!/usr/bin/env python
"""Tie the convolutions of a trained model, replacing their weights by the nearest tied ones.

    mmtied tie CONFIG CHECKPOINT.pth tied.pth --num-blocks 2

Prints the change of each layer. The model loses accuracy until it is fine-tuned.
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.cli import add_cfg_options, add_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint of the trained model')
    parser.add_argument('out', help='checkpoint to write; an existing file is replaced')
    parser.add_argument('--num-blocks', type=int, default=2, help='number of blocks of each layer (default: %(default)s)')
    parser.add_argument('--layers', nargs='+', default=['backbone.*'], metavar='NAME',
                        help='layer names, wildcards allowed (default: backbone.*)')
    parser.add_argument('--error-budget', type=float, metavar='E',
                        help='tie the layers that save most, up to a root mean square relative error of E')
    parser.add_argument('--permute', action='store_true',
                        help='first reorder channels inside the network so that the blocks of each layer become more similar')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Tie, write, and print what changed."""
    args = parse_args()
    from mmtied.cli import user_errors
    from mmtied.unpickling import safe_loading
    with user_errors(), safe_loading(args.trust_checkpoint):
        from mmtied.launch.config import load_config
        from mmtied.launch.convert import tied_conv_cfg, write_tied
        from mmtied.surgery.tie import format_changes
        cfg = load_config(args.config, args.cfg_options)
        changes, loads = write_tied(cfg, args.checkpoint, args.out, args.num_blocks, args.layers, args.error_budget,
                                    args.permute)
        print(format_changes(changes))
        if loads:
            print(f'to train on, set load_from={args.out!r} and model.backbone.conv_cfg={tied_conv_cfg(args.num_blocks)} in '
                  'this config')
        else:
            print(f'{args.out}: weights of mmtied.surgery.tie(model, {args.num_blocks}, layers), where layers are those above; '
                  'no backbone conv_cfg ties exactly these layers')


if __name__ == '__main__':
    main()
