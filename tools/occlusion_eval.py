#!/usr/bin/env python
"""AP by occlusion of any detector, from its results in COCO's format or from mmdet's dump.

    python tools/occlusion_eval.py instances_val2017.json results.bbox.json results.segm.json --out occlusion/
    python tools/occlusion_eval.py instances_val2017.json predictions.pkl --out occlusion/

Prints a table for each IoU type and, with --out, writes report.json, buckets.csv, records.npz (for
tools/compare_runs.py), ap_over_r_<iou type>.png and report.html.
With --images the page also shows the images where the detector did worst in each bucket.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmtied.cli import user_errors, warn
from mmtied.compat import require
from mmtied.evaluation.buckets import Evaluation
from mmtied.evaluation.inputs.dumps import dump_detections, dumped_iou_types, is_dump, read_dump
from mmtied.evaluation.inputs.ground_truth import GroundTruth, label_category_ids, read_ground_truth
from mmtied.evaluation.inputs.images import image_paths
from mmtied.evaluation.inputs.results import (
    Detections,
    describe_unusual,
    held_iou_types,
    join_detections,
    make_detections,
    read_results,
)
from mmtied.evaluation.intervals import Bootstrap
from mmtied.evaluation.occlusion import OCCLUSION_RATIOS
from mmtied.evaluation.pipeline import evaluate_detections
from mmtied.evaluation.protocol import DEFAULT_EDGES, IOU_TYPES, PROPOSAL_NUMS, UNITS, check_proposal_nums
from mmtied.evaluation.reporting.files import write_outputs
from mmtied.evaluation.reporting.pictures import draw_worst, shown_of
from mmtied.evaluation.reporting.tables import format_tables


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', help='COCO instances file')
    parser.add_argument('results', nargs='+', help='results of one detector, boxes, masks, or parts of either: COCO results, '
                        "or .pkl files that tools/test.py --out (mmdet's DumpDetResults) wrote")
    parser.add_argument('--iou-type', nargs='+', choices=IOU_TYPES, help='default: what the files hold')
    parser.add_argument('--classes', nargs='+', metavar='NAME',
                        help="evaluate these categories only; a .pkl file's labels count them, in the annotation file's order")
    parser.add_argument('--definition', default='covered', help=f'occlusion ratio: {", ".join(OCCLUSION_RATIOS)} (covered)')
    parser.add_argument('--edges', nargs='+', type=float, default=DEFAULT_EDGES, help='bucket edges (default: 0 0.1 ... 1)')
    parser.add_argument('--same-category', action='store_true', help='only instances of one category occlude each other')
    parser.add_argument('--unit', choices=UNITS, default='image', help='what goes into buckets (image)')
    parser.add_argument('--cumulative', action='store_true', help='buckets r >= t in place of disjoint ones')
    parser.add_argument('--replicates', type=int, default=1000, help='bootstrap replicates for the intervals (1000); 0: none')
    parser.add_argument('--seed', type=int, default=0, help='seed of their draws (0)')
    parser.add_argument('--proposal-nums', nargs='+', type=int, default=PROPOSAL_NUMS,
                        help="detections used for each image and category (default: COCO's 1 10 100; mmdet: 100 300 1000)")
    parser.add_argument('--out', help='folder for report.json, buckets.csv, records.npz, plots and report.html')
    parser.add_argument('--name', help="the detector's name on the page (default: the first results file's)")
    parser.add_argument('--images', help='folder of the images, to show those where the detector did worst')
    parser.add_argument('--worst', type=int, default=3, help='how many images of each bucket to show (3)')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, print, write."""
    args = parse_args(argv)
    with user_errors():
        for package in ('rich', 'matplotlib', 'jinja2'):
            require(package, 'The report')
        evaluation = Evaluation(args.definition, args.edges, args.unit, args.cumulative, args.same_category)
        bootstrap = Bootstrap(args.replicates, args.seed) if args.replicates else None
        check_proposal_nums(args.proposal_nums)
        if args.images and not args.out:
            raise ValueError('--images draws into the page that --out asks for; give --out FOLDER too')
        if args.out and Path(args.out).exists() and not Path(args.out).is_dir():
            raise ValueError(f'--out {args.out}: a folder is needed, this is a file')
        ground_truth = read_ground_truth(args.annotations)
        paths = image_paths(ground_truth, args.images) if args.images else None
        detections = load_detections(args.results, ground_truth, args.iou_type, args.classes)
        for iou_type, of_type in detections.items():
            for line in describe_unusual(of_type, ground_truth.image_ids):
                warn(f'{iou_type}: {line}')
        category_ids = label_category_ids(ground_truth, args.classes)
        evaluated = evaluate_detections(ground_truth, detections, [evaluation], args.proposal_nums, category_ids)
        if bootstrap:
            evaluated = evaluated.with_intervals(bootstrap)
        evaluated.report['data'] = Path(args.annotations).name
        written = []
        if args.out:
            examples = None
            if paths:
                iou_type = 'segm' if 'segm' in detections else 'bbox'
                examples = draw_worst(evaluated, iou_type, lambda image: shown_of(detections[iou_type], image),
                                      paths.__getitem__, args.worst)
            written = list(write_outputs(evaluated, args.out, args.name or Path(args.results[0]).stem, examples))
        print(format_tables(evaluated.report))  # last, so that a closed pipe costs no file
        for path in written:
            print(f'wrote {path}')


def load_detections(paths: Sequence[str], ground_truth: GroundTruth, iou_types: Sequence[str] | None = None,
                    classes: Sequence[str] | None = None) -> dict[str, Detections]:
    """The detections of each IoU type, joined over the files that hold it.

    mmdet's segm file also has boxes, with the masks' scores: a file with masks counts for bbox only where no file has boxes
    alone.
    """
    files = {path: read_dump(path) if is_dump(path) else read_results(path) for path in paths}
    held = {path: (dumped_iou_types if is_dump(path) else held_iou_types)(entries) for path, entries in files.items()}
    present = {iou_type for types in held.values() for iou_type in types}
    detections = {}
    for iou_type in iou_types or [iou_type for iou_type in IOU_TYPES if iou_type in present] or ['bbox']:
        alone = [path for path in files if held[path] == (iou_type,)]
        chosen = (alone if iou_type == 'bbox' else []) or [path for path in files if iou_type in held[path]] or list(files)
        parts = [dump_detections(files[path], ground_truth, iou_type, classes, path) if is_dump(path) else
                 make_detections(files[path], ground_truth, iou_type, path) for path in chosen]
        detections[iou_type] = join_detections(parts)
    return detections


if __name__ == '__main__':
    main()
