#!/usr/bin/env python
"""Write a trained model for inference, with batch normalization folded and tied layers as plain convolutions.

    mmtied deploy CONFIG CHECKPOINT.pth model.pt

The file contains a whole classifier, or the backbone and neck of a detector. It takes images that are already normalized by mean
and standard deviation.
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.cli import add_cfg_options, add_config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint of the trained model')
    parser.add_argument('out', help='file to write; an existing file is replaced')
    parser.add_argument('--format', choices=['torchscript', 'onnx', 'state'], help="'state' is the state_dict of the module "
                        'that mmtied.surgery.deploy returns (default: onnx for a file that ends with .onnx, else torchscript)')
    parser.add_argument('--shape', type=int, nargs=2, default=(224, 224), metavar=('H', 'W'),
                        help='image size for export and comparison (default: 224 224)')
    parser.add_argument('--batch', type=int, default=1, help='batch size for export and comparison (default: %(default)s)')
    parser.add_argument('--backbone-only', action='store_true', help="leave out the neck and a classifier's head")
    parser.add_argument('--dynamic-size', action='store_true',
                        help='let an ONNX file accept images of any size; the other formats always do')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Deploy, compare, write, and print what changed."""
    args = parse_args()
    from mmtied.cli import user_errors
    from mmtied.unpickling import safe_loading
    with user_errors(), safe_loading(args.trust_checkpoint):
        from mmtied.launch.config import load_config
        from mmtied.launch.convert import write_deployed
        cfg = load_config(args.config, args.cfg_options)
        file_format = args.format or ('onnx' if args.out.lower().endswith('.onnx') else 'torchscript')
        done = write_deployed(cfg, args.checkpoint, args.out, file_format, args.shape, args.batch, args.backbone_only,
                              args.dynamic_size)
        print(f'{args.out}: {" and ".join(done.parts)} as {file_format}')
        print('parameters: {:,} before, {:,} after'.format(*done.parameters))
        print('modules: {:,} before, {:,} after'.format(*done.modules))
        print(f'largest difference of outputs: {done.difference:.2g} (outputs up to {done.largest_output:.3g})')


if __name__ == '__main__':
    main()
