#!/usr/bin/env python
"""AP by occlusion of any detector, from its results in COCO's format or from mmdet's dump.

    mmtied eval instances_val2017.json results.bbox.json results.segm.json --out occlusion/
    mmtied eval instances_val2017.json predictions.pkl --out occlusion/

Prints a table for each IoU type and, with --out, writes report.json, buckets.csv, records.npz (for
`mmtied compare`), ap_over_r_<iou type>.png and report.html.
With --images the page also shows images of each bucket, with what was found, missed, found twice and invented.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.evaluation.options import add_bucket_options, add_ratio_options, add_reading_options
    from mmtied.evaluation.protocol import BOX_FORMATS, IOU_TYPES, PROPOSAL_NUMS, PROTOCOLS
    from mmtied.plotting import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO instances file, or annotations of another layout of docs/formats.md')
    parser.add_argument('results', nargs='+', help='results of one detector, boxes, masks, or parts of either: COCO results, '
                        "or .pkl files that `mmtied test --out` (mmdet's DumpDetResults) wrote")
    parser.add_argument('--iou-type', nargs='+', choices=IOU_TYPES, help='default: what the files hold')
    parser.add_argument('--classes', nargs='+', metavar='NAME',
                        help="evaluate these categories only; a .pkl file's labels count them, in the annotation file's order")
    parser.add_argument('--box-format', choices=BOX_FORMATS, help="format of the results' boxes (default: COCO's xywh in "
                        'JSON, xyxy in .pkl)')
    parser.add_argument('--label-names', nargs='+', metavar='NAME',
                        help="names of the model's labels in their order, where it knows other classes than the annotations")
    parser.add_argument('--category-offset', type=int, default=0, help="number that is added to the results' category ids (0)")
    parser.add_argument('--class-agnostic', action='store_true', help='AP without regard to categories (useCats=0 of COCOeval)')
    add_reading_options(parser)
    parser.add_argument('--only-images-with-results', action='store_true', help='evaluate only images that have results')
    parser.add_argument('--protocol', choices=PROTOCOLS, default='auto',
                        help="evaluation protocol (auto: LVIS's where images list negative categories)")
    add_ratio_options(parser, '; or what annotations state: visible_box, visible_mask, field:NAME, field:1-NAME')
    parser.add_argument('--preset', help="a data set's levels of occlusion: citypersons, crowdhuman, olac or ochuman; instead of "
                        '--definition, --edges and --unit')
    parser.add_argument('--labels', nargs=2, metavar=('NAME', 'FILE'), help='JSON file with a value for each image id or file '
                        'name, as the field NAME of the images (--labels occlusion_level FILE for --preset olac)')
    parser.add_argument('--levels', nargs='+', help="names of a field's levels, the least occluded first")
    add_bucket_options(parser)
    parser.add_argument('--replicates', type=int, default=1000, help='random halves and quarters of the images behind the '
                        'intervals, rounded up to tens (1000); 0: no intervals and null bands')
    parser.add_argument('--null-sets', type=int, default=250, help='random image sets behind each null band (250); 0: none')
    parser.add_argument('--seed', type=int, default=0, help='seed of their draws (0)')
    parser.add_argument('--intervals', nargs='+', metavar='NAME', help='statistics that get intervals and null bands, such as '
                        'MR-2 (default: AP AP50 AP75; MR-2 for --preset citypersons)')
    parser.add_argument('--proposal-nums', nargs='+', type=int, default=PROPOSAL_NUMS,
                        help="detections used for each image and category (default: COCO's 1 10 100; mmdet: 100 300 1000)")
    parser.add_argument('--iou', nargs='+', type=float, default=(), metavar='THRESHOLD', help='report AP at these IoU thresholds '
                        'too, at most five beside 0.5, 0.55 ... 0.95')
    parser.add_argument('--out', help='folder for report.json, buckets.csv, buckets.tex, records.npz, plots and report.html')
    parser.add_argument('--name', help="the detector's name in plots, on the page and in comparisons (default: the first results "
                        "file's)")
    parser.add_argument('--format', choices=FORMATS, default='png', help='format of the plots (png)')
    parser.add_argument('--hide-empty', action='store_true', help='show no buckets without instances; report.json and '
                        'buckets.csv have them all')
    parser.add_argument('--images', help='folder of the images, to show what was found, missed, found twice and invented, and '
                        'for sizes that the annotations do not state; with absolute file names: /')
    parser.add_argument('--choice', choices=('worst', 'typical', 'random'),
                        help='which images to show: those with the lowest F1, closest to the median, or drawn by --seed (worst)')
    parser.add_argument('--worst', type=int, default=3, help='how many images of each bucket to show (3)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, print, write."""
    args = parse_args(argv)
    from mmtied.atomic import check_can_write
    from mmtied.cli import no_collection, user_errors, warnings_as_lines
    from mmtied.compat import require

    with user_errors(), warnings_as_lines(), no_collection():
        if args.out == '':
            raise ValueError("--out '': a folder is expected")
        if args.out:
            require(['matplotlib', 'jinja2', *(['PIL'] if args.images else [])], 'The report that --out writes')
            check_can_write(args.out, '--out', folder=True)
        if args.choice and not (args.images and args.out):
            raise ValueError(f'--choice {args.choice}: pictures are drawn with --images and --out')
        if args.worst < 1:
            raise ValueError(f'--worst {args.worst}: a whole number from 1 is needed; without --images no pictures are drawn')
        if args.intervals and not args.replicates:
            raise ValueError(f'--intervals {" ".join(args.intervals)}: with --replicates 0 there are no intervals; give either')
        if args.replicates < 0:
            raise ValueError(f'--replicates {args.replicates}: a whole number from 0 is needed; 0 means no intervals')

        from mmtied.evaluation import Bootstrap, Evaluation, Statistic, evaluate, read_ground_truth, register_statistic
        from mmtied.evaluation.inputs.coco_json import read_json
        from mmtied.evaluation.inputs.images import image_paths
        from mmtied.evaluation.options import evaluation_of, reading_options
        from mmtied.evaluation.presets import STATISTICS_OF_PRESETS, preset
        from mmtied.evaluation.protocol import STATISTICS, check_proposal_nums
        from mmtied.evaluation.reporting.tables import format_tables
        from mmtied.evaluation.stated import with_image_field
        from mmtied.evaluation.summary import without_empty_buckets

        evaluation = preset(args.preset) if args.preset else evaluation_of(args)
        if args.preset and evaluation_of(args) != Evaluation():
            raise ValueError(f'--preset {args.preset} states --definition, --same-category, --levels, --edges, --cumulative and '
                             '--unit; give either')
        check_proposal_nums(args.proposal_nums)
        for name, iou in ((f'AP{100 * iou:g}', iou) for iou in args.iou):
            if name not in STATISTICS:
                register_statistic(Statistic(name, iou=iou, bootstrapped=True, detail=True))
        bootstrap = Bootstrap(args.replicates, args.seed, null_sets=args.null_sets,
                              statistics=args.intervals or STATISTICS_OF_PRESETS.get(args.preset)) if args.replicates else None
        ground_truth = read_ground_truth(args.annotations, image_folder=args.images, **reading_options(args))
        if args.labels:
            labels = read_json(args.labels[1])
            if not isinstance(labels, dict):
                raise ValueError(f'{args.labels[1]}: a value for each image id is expected, such as {{"139": "low"}}')
            ground_truth = with_image_field(ground_truth, args.labels[0], labels)
        if args.images and args.out:
            image_paths(ground_truth, args.images)  # fails before the work, not after it
        result = evaluate(ground_truth, args.results, evaluation, iou_types=args.iou_type, classes=args.classes,
                          box_format=args.box_format, proposal_nums=args.proposal_nums, bootstrap=bootstrap, name=args.name,
                          label_names=args.label_names, category_offset=args.category_offset, use_cats=not args.class_agnostic,
                          only_images_with_results=args.only_images_with_results, skip_invalid=args.skip_invalid)
        result.report['data'] = Path(args.annotations).name
        written = result.save(args.out, args.images, args.worst, args.format, args.hide_empty,
                              args.choice or 'worst', args.seed) if args.out else []
        shown = without_empty_buckets(result.report) if args.hide_empty else result.report
        print(format_tables(shown))  # last, so that a closed pipe costs no file
        for path in written:
            print(f'wrote {path}')


if __name__ == '__main__':
    main()
