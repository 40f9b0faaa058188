#!/usr/bin/env python
"""Write a trained model in the form it should run in: normalisations folded, tied layers as plain convolutions.

Of a classifier that is all of it, of a detector its backbone and neck; mean and deviation of images are not in the file.
"""

import argparse

from mmtied.cli import user_errors


def main() -> None:
    """Deploy, compare, write, and print what changed."""
    with user_errors():
        from mmtied.launch import arguments, config
        from mmtied.launch.deploy import FORMATS, write_deployed
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument('config', help='config file, or package::folder/file.py for one that a package ships (mmdet::...)')
        parser.add_argument('checkpoint', help='checkpoint of the trained model')
        parser.add_argument('out', help='file to write; one that exists is replaced')
        parser.add_argument('--format', choices=FORMATS, default='torchscript',
                            help="'state' is a state_dict, for what mmtied.surgery.deploy returns (default: %(default)s)")
        parser.add_argument('--shape', type=int, nargs=2, default=(224, 224), metavar=('H', 'W'),
                            help='size of the images that the file is made and compared with (default: 224 224)')
        parser.add_argument('--batch', type=int, default=1, help='number of these images (default: %(default)s)')
        parser.add_argument('--backbone-only', action='store_true', help="leave out neck and classifier's head")
        arguments.add_cfg_options(parser)
        args = parser.parse_args()
        cfg = config.load_config(args.config, args.cfg_options)
        done = write_deployed(cfg, args.checkpoint, args.out, args.format, args.shape, args.batch, args.backbone_only)
        print(f'{args.out}: {" and ".join(done.parts)} as {args.format}')
        for name in ('parameters', 'modules'):
            print('{}: {:,} before, {:,} after'.format(name, *getattr(done, name)))
        print(f'largest difference of outputs: {done.difference:.2g} at values up to {done.largest_output:.3g}')


if __name__ == '__main__':
    main()
