#!/usr/bin/env python
"""Add the occlusion ratio of every image and annotation to a copy of a COCO file, and list the image ids of each bucket.

    mmtied annotate instances_val2017.json --out annotated/

Writes a .json file of the same name, with the keys occlusion_ratio and occlusion_bucket in each image and annotation, and
buckets.json, which lists the image ids of each bucket, or the annotation ids with --unit instance.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.evaluation.options import add_bucket_options, add_ratio_options, add_reading_options

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO instances file, or annotations in another format of docs/formats.md')
    parser.add_argument('--out', required=True, help='output folder, other than that of the annotations')
    add_ratio_options(parser)
    add_bucket_options(parser, 'unit listed in buckets.json')
    add_reading_options(parser)
    parser.add_argument('--images', help='image folder, for sizes missing from the annotations')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Annotate, write, print."""
    args = parse_args(argv)
    from mmtied.atomic import check_can_write, real_path
    from mmtied.cli import user_errors, warnings_as_lines

    with user_errors(), warnings_as_lines():
        source, out = Path(args.annotations), Path(args.out)
        check_can_write(out, '--out', folder=True)
        if real_path(out) == real_path(source).parent:
            raise ValueError(f'--out {out}: contains the annotations, which would be overwritten; name another folder')
        from mmtied.evaluation import annotate
        from mmtied.evaluation.options import evaluation_of, reading_options

        found = annotate(args.annotations, evaluation_of(args), image_folder=args.images, **reading_options(args))
        name = real_path(source).name.removesuffix('.gz')
        for path in found.save(out, name if name.endswith('.json') else f'{name}.json'):
            print(f'wrote {path}')


if __name__ == '__main__':
    main()
