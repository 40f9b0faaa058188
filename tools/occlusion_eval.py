#!/usr/bin/env python
"""Compute the AP of any detector by occlusion, from COCO results or mmdet's dumped predictions.

    mmtied eval instances_val2017.json results.bbox.json results.segm.json --out occlusion/
    mmtied eval instances_val2017.json predictions.pkl --out occlusion/

Prints a table for each IoU type. --out also writes report.json, buckets.csv, records.npz (for `mmtied compare`),
ap_over_r_<iou type>.png and report.html. With --images, the page shows images of each bucket with found and missed
objects, duplicates and unmatched detections.
"""

import argparse
import gc
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; imports nothing heavy, so that --help is quick."""
    from mmtied.evaluation.options import add_bucket_options, add_ratio_options, add_reading_options
    from mmtied.evaluation.protocol import BOX_FORMATS, IOU_TYPES, PROPOSAL_NUMS, PROTOCOLS
    from mmtied.plotting import FORMATS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO instances file, or annotations in another format of docs/formats.md')
    parser.add_argument('results', nargs='+', help='results of one detector (boxes, masks, or parts of either): COCO JSON files, '
                        "or .pkl files from `mmtied test --out` (mmdet's DumpDetResults)")

    reading = parser.add_argument_group('reading annotations and results')
    reading.add_argument('--iou-type', nargs='+', choices=IOU_TYPES, help='IoU types to evaluate (default: those in the results)')
    reading.add_argument('--classes', nargs='+', metavar='NAME',
                         help="evaluate only these categories; labels in .pkl files index them, in the annotation file's order")
    reading.add_argument('--box-format', choices=BOX_FORMATS,
                         help="box format of the results (default: COCO's xywh in JSON, xyxy in .pkl)")
    reading.add_argument('--label-names', nargs='+', metavar='NAME',
                         help="class names of the model, in label order, if they differ from the annotations' categories")
    reading.add_argument('--category-offset', type=int, default=0,
                         help="number to add to the results' category ids (default: %(default)s)")
    add_reading_options(reading)
    reading.add_argument('--only-images-with-results', action='store_true', help='evaluate only images that have results')
    reading.add_argument('--images', help='image folder, for pictures on the page and for sizes missing from the annotations; '
                         '/ for absolute file names')

    buckets = parser.add_argument_group('occlusion ratio and buckets')
    add_ratio_options(buckets, '; or a stated one: visible_box, visible_mask, field:NAME, field:1-NAME')
    buckets.add_argument('--preset', help='occlusion levels of a data set: citypersons, crowdhuman, olac or ochuman; replaces '
                         '--definition, --edges and --unit')
    buckets.add_argument('--labels', nargs=2, metavar=('NAME', 'FILE'), help='JSON file that maps image ids or file names to '
                         'values of the image field NAME (--labels occlusion_level FILE for --preset olac)')
    buckets.add_argument('--levels', nargs='+', help="names of a field's levels, least occluded first")
    add_bucket_options(buckets)

    statistics = parser.add_argument_group('statistics and intervals')
    statistics.add_argument('--protocol', choices=PROTOCOLS, default='auto',
                            help="evaluation protocol (default: auto, LVIS's if images list negative categories)")
    statistics.add_argument('--class-agnostic', action='store_true', help='ignore categories (useCats=0 of COCOeval)')
    statistics.add_argument('--proposal-nums', nargs='+', type=int, default=PROPOSAL_NUMS,
                            help="detections per image and category (default: COCO's 1 10 100; mmdet: 100 300 1000)")
    statistics.add_argument('--iou', nargs='+', type=float, default=(), metavar='THRESHOLD',
                            help='also report AP at these IoU thresholds, at most five in addition to 0.5, 0.55 ... 0.95')
    statistics.add_argument('--intervals', nargs='+', metavar='NAME', help='statistics to give intervals and null bands, such as '
                            'MR-2 (default: AP AP50 AP75; MR-2 for --preset citypersons)')
    statistics.add_argument('--replicates', type=int, default=1000, help='random halves and quarters of the images behind the '
                            'intervals, rounded up to a multiple of ten; 0 for no intervals or null bands (default: %(default)s)')
    statistics.add_argument('--null-sets', type=int, default=250,
                            help='random image sets behind each null band; 0 disables null bands (default: %(default)s)')
    statistics.add_argument('--seed', type=int, default=0, help='seed of these samples (default: %(default)s)')

    output = parser.add_argument_group('output')
    output.add_argument('--out',
                        help='output folder for report.json, buckets.csv, buckets.tex, records.npz, plots and report.html')
    output.add_argument('--name',
                        help='name of the detector in plots, pages and comparisons (default: from the first results file)')
    output.add_argument('--format', choices=FORMATS, default='png', help='format of the plots (default: %(default)s)')
    output.add_argument('--hide-empty', action='store_true',
                        help='hide buckets without instances; report.json and buckets.csv keep them')
    output.add_argument('--choice', choices=('worst', 'typical', 'random'), help='images to show with --images: those with the '
                        'lowest F1, closest to the median F1, or drawn at random by --seed (default: worst)')
    output.add_argument('--worst', type=int, default=3, help='number of images to show per bucket (default: %(default)s)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, print, write."""
    args = parse_args(argv)
    from mmtied.atomic import check_can_write
    from mmtied.cli import no_collection, user_errors, warnings_as_lines
    from mmtied.compat import require

    with user_errors(), warnings_as_lines(), no_collection():
        if args.out == '':
            raise ValueError("--out '': expected a folder")
        if args.out:
            require(['matplotlib', 'jinja2', *(['PIL'] if args.images else [])], 'The report that --out writes')
            check_can_write(args.out, '--out', folder=True)
        if args.choice and not (args.images and args.out):
            raise ValueError(f'--choice {args.choice}: needs --images and --out')
        if args.worst < 1:
            raise ValueError(f'--worst {args.worst}: expected at least 1; leave out --images to draw no pictures')
        if args.intervals and not args.replicates:
            raise ValueError(f'--intervals {" ".join(args.intervals)}: --replicates 0 disables intervals; give only one of them')
        if args.replicates < 0:
            raise ValueError(f'--replicates {args.replicates}: expected at least 0; 0 disables intervals')

        from mmtied.evaluation import Bootstrap, Evaluation, Statistic, evaluate, read_ground_truth, register_statistic
        from mmtied.evaluation.buckets import STATISTICS_OF_PRESETS, preset
        from mmtied.evaluation.inputs.coco_json import read_json
        from mmtied.evaluation.inputs.images import image_paths
        from mmtied.evaluation.options import evaluation_of, reading_options
        from mmtied.evaluation.protocol import STATISTICS, check_proposal_nums
        from mmtied.evaluation.reporting.tables import format_tables
        from mmtied.evaluation.stated import with_image_field
        from mmtied.evaluation.summary import without_empty_buckets

        evaluation = preset(args.preset) if args.preset else evaluation_of(args)
        if args.preset and evaluation_of(args) != Evaluation():
            raise ValueError(f'--preset {args.preset} sets --definition, --same-category, --levels, --edges, --cumulative and '
                             '--unit; leave these out')
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
                raise ValueError(f'{args.labels[1]}: expected a value for each image id, such as {{"139": "low"}}')
            ground_truth = with_image_field(ground_truth, args.labels[0], labels)
        if args.images and args.out:
            image_paths(ground_truth, args.images)  # fail before the evaluation, not after it
        result = evaluate(ground_truth, args.results, evaluation, iou_types=args.iou_type, classes=args.classes,
                          box_format=args.box_format, proposal_nums=args.proposal_nums, bootstrap=bootstrap, name=args.name,
                          label_names=args.label_names, category_offset=args.category_offset, use_cats=not args.class_agnostic,
                          only_images_with_results=args.only_images_with_results, skip_invalid=args.skip_invalid)
        result.report['data'] = Path(args.annotations).name
        written = result.save(args.out, args.images, args.worst, args.format, args.hide_empty,
                              args.choice or 'worst', args.seed) if args.out else []
        shown = without_empty_buckets(result.report) if args.hide_empty else result.report
        print(format_tables(shown))  # last, so that a closed pipe loses no file
        for path in written:
            print(f'wrote {path}')
        if argv is None:
            gc.freeze()  # at exit, the final collection would traverse all of PyTorch's objects


if __name__ == '__main__':
    main()
