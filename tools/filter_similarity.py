#!/usr/bin/env python
"""Measure the similarity of a network's filters: of the image patterns that they respond to, and of their weights.

    mmtied similarity CONFIG CHECKPOINT.pth [CONFIG CHECKPOINT.pth ...] --images val2017/ --out similarity/

Prints the mean pairwise cosine of each layer's filters and the share of pairs above a threshold. --out also writes a CSV file,
histograms that compare the networks, and the cosine matrices. A filter's pattern is its gradient by guided backpropagation.
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    from mmtied.cli import add_cfg_options, add_device, add_networks
    from mmtied.plotting import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_networks(parser)
    parser.add_argument('--images', nargs='+', required=True, metavar='PATH', help='image files or folders')
    parser.add_argument('--num', type=int, default=50, help='number of images, chosen at random (default: %(default)s)')
    parser.add_argument('--size', type=int, default=224,
                        help='resize central squares to this size in pixels (default: %(default)s)')
    place = parser.add_mutually_exclusive_group()
    place.add_argument('--layers', nargs='+', metavar='NAME',
                       help='layer names, wildcards allowed; the same number for each network')
    place.add_argument('--depths', nargs='+', type=float, default=(.25, .5, .75, 1.), metavar='D',
                       help='depths of layers instead; 1 is the last convolution larger than 1x1 (default: 0.25 0.5 0.75 1)')
    parser.add_argument('--filters', type=int, default=64, help='filters per layer, chosen at random (default: %(default)s)')
    parser.add_argument('--average', choices=('patterns', 'similarities'), default='patterns',
                        help="average 'patterns' over images, as in the paper, or 'similarities' (default: %(default)s)")
    parser.add_argument('--threshold', type=float, default=.5,
                        help='report the share of pairs above this cosine (default: %(default)s)')
    parser.add_argument('--out', help='output folder for similarity.csv, histograms.png and matrices.png')
    parser.add_argument('--format', choices=FORMATS, default='png', help='format of the figures (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the choice of images and filters (default: %(default)s)')
    add_device(parser)
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    args = parse_args()
    from mmtied.atomic import check_can_write
    from mmtied.cli import user_errors
    from mmtied.compat import require
    from mmtied.unpickling import safe_loading
    with user_errors(), safe_loading(args.trust_checkpoint):
        require(['mmengine', 'mmcv'], 'Running a config')
        require('PIL', 'Reading images')
        if args.out:
            require('matplotlib', 'The figures that --out writes')
            check_can_write(args.out, '--out', folder=True)
        if args.size < 1:
            raise ValueError(f'--size {args.size}: expected at least 1')
        if not -1 <= args.threshold <= 1:
            raise ValueError(f'--threshold {args.threshold}: expected a cosine, from -1 to 1')
        if args.filters < 2:
            raise ValueError(f'--filters {args.filters}: expected at least 2')
        from mmtied.analysis.filter_similarity import check_depths, find_layers, layers_at
        from mmtied.analysis.similarity_figures import check_counts, format_similarity, measure_layers, write_similarity
        from mmtied.launch.networks import chosen_images, image_batches, load_networks

        check_depths(args.depths)
        paths = chosen_images(args.images, args.num, args.seed)
        networks = load_networks(args.networks, args.names, args.cfg_options, args.device)
        layers = {network.name: find_layers(network.model, args.layers) if args.layers else layers_at(network.model, args.depths)
                  for network in networks}
        check_counts(layers)
        measured = []
        for network in networks:
            print(f'{network.name}: {len(layers[network.name])} layers, {len(paths)} images')
            measured += measure_layers(network.name, network.model, layers[network.name],
                                       lambda network=network: image_batches(network, paths, args.size),
                                       args.filters, args.seed, args.average)
        print(format_similarity(measured, args.threshold))
        for path in write_similarity(measured, args.out, args.threshold, args.format) if args.out else ():
            print(f'wrote {path}')


if __name__ == '__main__':
    main()
