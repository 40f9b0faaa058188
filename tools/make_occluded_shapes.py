#!/usr/bin/env python
"""Make a data set of occluded shapes in COCO format; docs/occluded_shapes.md shows examples."""

import argparse
import json
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='folder to create: train2017/, val2017/, annotations/')
    parser.add_argument('--images', type=int, default=500, help='number of training images (default: 500)')
    parser.add_argument('--val-images', type=int,
                        help='number of validation images (default: a fifth of the training images, at least 10)')
    parser.add_argument('--seed', type=int, default=0,
                        help='random seed; the same seed and options give identical files (default: %(default)s)')
    parser.add_argument('--size', type=int, default=160,
                        help='height and width of the images in pixels (default: %(default)s)')
    parser.add_argument('--objects', type=int, nargs=2, default=(3, 8), metavar=('MIN', 'MAX'),
                        help='number of objects per image (default: 3 8)')
    parser.add_argument('--ratio-edges', type=float, nargs='+', metavar='R',
                        help='bucket edges for occlusion ratios above 0 (default: 0 0.1 ... 0.9)')
    parser.add_argument('--ratio-weights', type=float, nargs='+', metavar='W',
                        help='weight of each bucket (default: its width, for uniformly distributed ratios)')
    parser.add_argument('--zero-share', type=float, default=0.1,
                        help='share of images with r = 0 (default: %(default)s)')
    parser.add_argument('--tolerance', type=float, default=0.005,
                        help="largest deviation of an image's r from its target (default: %(default)s)")
    parser.add_argument('--min-visible', type=float, default=0.25,
                        help='smallest visible share of a shape (default: %(default)s)')
    parser.add_argument('--workers', type=int, help='number of processes (default: the number of processors)')
    parser.add_argument('--overwrite', action='store_true', help='replace a data set made by this tool')
    return parser.parse_args()


def histogram(annotation_path: Path, edges: tuple[float, ...]) -> str:
    """Return one line with the number of images with r = 0 and in each bucket above."""
    import numpy as np
    ratios = np.array([image['occlusion_ratio'] for image in json.loads(annotation_path.read_text(encoding='utf-8'))['images']])
    counts = np.histogram(ratios[ratios > 0], bins=edges)[0]
    names = [f'{"[" if lower else "("}{lower:g}, {upper:g})' for lower, upper in zip(edges, edges[1:], strict=False)]
    rows = zip(['r = 0', *names], [np.count_nonzero(ratios == 0), *counts], strict=True)
    return '  '.join(f'{name}: {count}' for name, count in rows)


def main() -> None:
    """Make the data set, and print its histogram of occlusion ratios."""
    args = parse_args()
    from mmtied.cli import user_errors
    with user_errors():
        from mmtied.datasets import RATIO_EDGES, make_occluded_shapes
        edges = tuple(args.ratio_edges or RATIO_EDGES)
        paths = make_occluded_shapes(
            args.out, num_images=args.images, num_val_images=args.val_images, seed=args.seed, size=args.size,
            objects=args.objects, ratio_edges=edges, ratio_weights=args.ratio_weights, zero_share=args.zero_share,
            tolerance=args.tolerance, min_visible=args.min_visible, workers=args.workers, overwrite=args.overwrite,
            progress=True)
        for path in paths.values():
            print(f'{path}: images by occlusion ratio\n  {histogram(path, edges)}')


if __name__ == '__main__':
    main()
