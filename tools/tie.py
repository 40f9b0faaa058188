#!/usr/bin/env python
"""Tie the convolutions of a trained model: each gets the tied weights nearest to its own.

    mmtied tie CONFIG CHECKPOINT.pth tied.pth --num-blocks 2

Prints what that does to each layer. The model loses accuracy until it is trained further.
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.options import add_cfg_options, add_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint of the trained model')
    parser.add_argument('out', help='checkpoint to write; one that exists is replaced')
    parser.add_argument('--num-blocks', type=int, default=2, help='blocks of each layer (default: %(default)s)')
    parser.add_argument('--layers', nargs='+', default=['backbone.*'], metavar='NAME',
                        help='names of layers, with wildcards (default: backbone.*)')
    parser.add_argument('--error-budget', type=float, metavar='E',
                        help='tie the layers that save most while the root mean square of the relative errors is at most E')
    parser.add_argument('--permute', action='store_true',
                        help='first reorder channels inside the network so that the blocks of each layer are more alike')
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
            print(f'{args.out}: load_from of this config with model.backbone.conv_cfg={tied_conv_cfg(args.num_blocks)}')
        else:
            print(f'{args.out}: weights of mmtied.surgery.tie(model, {args.num_blocks}, layers), where layers are those above; '
                  'no conv_cfg of the backbone alone ties the same ones')


if __name__ == '__main__':
    main()
