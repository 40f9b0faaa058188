#!/usr/bin/env python
"""Draw the detections of several detectors on the same images, one row each; images are chosen by occlusion.

    mmtied samples instances_val2017.json val2017/ --results a.segm.json b.segm.json --out samples.png
    mmtied samples instances_val2017.json val2017/ --networks CONFIG CHECKPOINT.pth --bucket 0.8 0.9 --out samples.png

The first row shows the annotations. Colors tell the instances of an image apart; they do not match between rows.
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.cli import add_cfg_options, add_choice, add_device

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO instances file')
    parser.add_argument('images', help='image folder')
    parser.add_argument('--out', required=True, help='figure to write: .png, .jpg, .pdf or .svg')
    parser.add_argument('--results', nargs='+', default=[], metavar='FILE', help='results files, one per detector')
    parser.add_argument('--networks', nargs='+', default=[], metavar='CONFIG CHECKPOINT',
                        help='config and checkpoint of each additional detector, to run on the images')
    parser.add_argument('--names', nargs='+', help='name of each detector: first those of --results, then of --networks')
    parser.add_argument('--score', type=float, default=.05, help='lowest score to draw (default: %(default)s)')
    add_choice(parser, 4)
    add_device(parser)
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Read, run, draw, write."""
    args = parse_args()
    from mmtied.cli import choice_of, user_errors, warnings_as_lines
    from mmtied.compat import require
    from mmtied.unpickling import safe_loading
    with user_errors(), warnings_as_lines(), safe_loading(args.trust_checkpoint):
        require(['mmengine', 'mmcv'], 'Running a config')
        require(['matplotlib', 'PIL'], 'Drawing')
        from mmtied.evaluation import read_ground_truth
        from mmtied.evaluation.inputs.images import check_folder
        from mmtied.evaluation.options import reading_options
        from mmtied.launch.networks import load_networks, names_in_figure
        from mmtied.launch.samples import annotated, from_network, from_results, sample_rows
        from mmtied.plotting import check_figure_path, draw_grid, write_figure

        choice = choice_of(args)
        check_figure_path(args.out)
        files = [*args.results, *args.networks[::2]]
        if not files:
            raise ValueError('expected --results FILE ... or --networks CONFIG CHECKPOINT ..., got neither')
        names = names_in_figure(args.names, files, 'detectors')
        check_folder(args.images)
        ground_truth = read_ground_truth(args.annotations, image_folder=args.images, **reading_options(args))
        rows, with_masks = {}, False
        for name, path in zip(names, args.results, strict=False):
            rows[name], has_masks = from_results(ground_truth, path, args.score)
            with_masks = with_masks or has_masks
        if args.networks:
            for network in load_networks(args.networks, names[len(args.results):], args.cfg_options, args.device):
                rows[network.name] = from_network(ground_truth, args.images, network, args.score)
                with_masks = with_masks or getattr(network.model, 'with_mask', False)
        rows = {'annotations': annotated(ground_truth, with_masks), **rows}
        write_figure(draw_grid(sample_rows(ground_truth, args.images, rows, choice)), args.out)
        print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
