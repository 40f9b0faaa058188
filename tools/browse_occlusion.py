#!/usr/bin/env python
"""Draw example images of an occlusion bucket with their overlaps tinted: one picture each and a sheet of all.

    mmtied browse instances_val2017.json val2017/ --bucket 0.8 0.9 --out browse/

Areas under two or more boxes are tinted, deeper overlaps more strongly; outlines are colored by category.
"""

import argparse
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.cli import add_choice

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO instances file')
    parser.add_argument('images', help='image folder')
    parser.add_argument('--out', required=True, help='folder to create, for sheet.jpg and the pictures')
    add_choice(parser, 12)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Choose, draw, write."""
    args = parse_args(argv)
    from mmtied.atomic import check_can_write
    from mmtied.cli import choice_of, user_errors, warnings_as_lines
    from mmtied.compat import require

    with user_errors(), warnings_as_lines():
        require('PIL', 'Drawing')
        check_can_write(args.out, '--out', folder=True)
        from mmtied.analysis.example_images import write_examples
        from mmtied.evaluation import read_ground_truth
        from mmtied.evaluation.options import reading_options

        choice = choice_of(args)
        ground_truth = read_ground_truth(args.annotations, image_folder=args.images, **reading_options(args))
        for path in write_examples(ground_truth, args.images, args.out, choice):
            print(f'wrote {path}')


if __name__ == '__main__':
    main()
