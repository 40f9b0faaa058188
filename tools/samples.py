#!/usr/bin/env python
"""Draw what several detectors find in the same images, a row for each; images are chosen by how occluded they are.

    mmtied samples instances_val2017.json val2017/ --results a.segm.json b.segm.json --out samples.png
    mmtied samples instances_val2017.json val2017/ --networks CONFIG CHECKPOINT.pth --bucket 0.8 0.9 --out samples.png

The first row shows the annotations. Each instance has a color of its own, in no order between the rows.
"""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.evaluation.options import add_ratio_options, add_reading_options

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO instances file')
    parser.add_argument('images', help='folder of its images')
    parser.add_argument('--out', required=True, help='file to write: .png, .jpg, .pdf or .svg')
    parser.add_argument('--results', nargs='+', default=[], metavar='FILE', help='results files, one of each detector')
    parser.add_argument('--networks', nargs='+', default=[], metavar='CONFIG CHECKPOINT',
                        help='config and checkpoint of further detectors, which run on the images')
    parser.add_argument('--names', nargs='+', help='name of each detector: of results files, then of networks')
    parser.add_argument('--score', type=float, default=.05, help='detections with lower scores are not drawn (0.05)')
    parser.add_argument('--bucket', nargs=2, type=float, default=(.8, .9), metavar=('LOW', 'HIGH'),
                        help='images with LOW <= r < HIGH (default: 0.8 0.9)')
    add_ratio_options(parser)
    add_reading_options(parser)
    parser.add_argument('--num', type=int, default=4, help='number of images (4)')
    parser.add_argument('--seed', type=int, default=0, help='chooses the images (0)')
    parser.add_argument('--skip-missing', action='store_true', help='skip images whose files are missing')
    parser.add_argument('--device', help='such as cuda:1 (a GPU where there is one)')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE',
                        help='override settings of every config')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints that hold more than tensors and plain values, which runs code that is in them')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Read, run, draw, write."""
    args = parse_args(argv)
    from pathlib import Path

    from mmtied.atomic import check_can_write
    from mmtied.cli import user_errors, warnings_as_lines
    from mmtied.compat import require
    from mmtied.unpickling import safe_loading
    with user_errors(), warnings_as_lines(), safe_loading(args.trust_checkpoint):
        require(['mmengine', 'mmcv'], 'Running a config')
        require(['matplotlib', 'PIL'], 'Drawing')
        from mmtied.analysis.picture_grid import check_suffix, write_grid
        from mmtied.evaluation import read_ground_truth
        from mmtied.evaluation.buckets import bucket_between
        from mmtied.evaluation.inputs.images import check_folder
        from mmtied.evaluation.options import reading_options
        from mmtied.launch.networks import distinct, load_networks
        from mmtied.launch.samples import annotated, from_network, from_results, sample_rows

        check_suffix(args.out)
        check_can_write(args.out, '--out')
        count = len(args.results) + len(args.networks[::2])
        if not count:
            raise ValueError('expected --results FILE ... or --networks CONFIG CHECKPOINT ..., got neither')
        stems = [Path(name.split('::')[-1]).stem for name in (*args.results, *args.networks[::2])]
        names = distinct(args.names or stems)
        if len(names) != count:
            raise ValueError(f'--names: {len(names)} names for {count} detectors')
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
        write_grid(sample_rows(ground_truth, args.images, rows, bucket_between(*args.bucket), args.num, args.definition,
                               args.same_category, args.seed, args.skip_missing), args.out)
        print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
