"""pycocotools as the oracle: its six AP numbers for any set of images, and random cases to compare on."""

import contextlib
import copy
import io

import numpy as np
from hypothesis import strategies as st
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmtied.evaluation.accumulate import join_records
from mmtied.evaluation.buckets import make_evaluations
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.pipeline import evaluate_detections, match_detections
from mmtied.evaluation.targets import make_targets

STATISTICS = ('AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L')


def coco_evaluation(annotations, results, iou_type, image_ids=None, category_ids=None, proposal_nums=(1, 10, 100)):
    """Return a COCOeval after `evaluate`."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth, detections = COCO(), COCO()
        ground_truth.dataset = copy.deepcopy(annotations)
        ground_truth.createIndex()
        if results:
            detections = ground_truth.loadRes(copy.deepcopy(results))
        else:  # loadRes cannot read an empty list
            detections.dataset = {**copy.deepcopy(annotations), 'annotations': []}
            detections.createIndex()
        evaluation = COCOeval(ground_truth, detections, iou_type)
        evaluation.params.maxDets = list(proposal_nums)
        if image_ids is not None:
            evaluation.params.imgIds = list(image_ids)
        if category_ids is not None:
            evaluation.params.catIds = list(category_ids)
        evaluation.evaluate()
    return evaluation


def statistics(evaluation):
    """Return AP, AP50, ... of a COCOeval, with None for its -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    values = [None if value == -1 else value for value in evaluation.stats[:6].tolist()]
    return dict(zip(STATISTICS, values, strict=True))


def coco_statistics(*args, **kwargs):
    return statistics(coco_evaluation(*args, **kwargs))


def restrict(evaluation, image_ids):
    """Return a copy of a COCOeval that keeps the matches of the given images only."""
    part = copy.copy(evaluation)
    part.params, part._paramsEval = copy.deepcopy(evaluation.params), copy.deepcopy(evaluation._paramsEval)
    keep = np.isin(evaluation.params.imgIds, image_ids)
    matches = np.empty(len(evaluation.evalImgs), dtype=object)
    matches[:] = evaluation.evalImgs
    part.evalImgs = matches.reshape(-1, len(keep))[:, keep].ravel().tolist()
    part.params.imgIds = part._paramsEval.imgIds = np.array(evaluation.params.imgIds)[keep].tolist()
    return part


def assert_same(ours, theirs, note=''):
    """Assert that all of their numbers are within 1e-12 of ours, or undefined in both."""
    for name in theirs:
        if theirs[name] is None or ours[name] is None:
            assert ours[name] is None and theirs[name] is None, (note, name, ours[name], theirs[name])
        else:
            assert abs(ours[name] - theirs[name]) <= 1e-12, (note, name, ours[name], theirs[name])


def report_of(ground_truth, detections, proposal_nums=(1, 10, 100), category_ids=None, extra_evaluations=(), **options):
    """Evaluate detections, as arrays or tensors, with the options of one Evaluation, and return the report."""
    evaluations = make_evaluations(extra_evaluations, **options)
    return evaluate_detections(ground_truth, detections, evaluations, proposal_nums, category_ids).report


def match_all(data, results, iou_type, proposal_nums=(1, 10, 100)):
    """Return the records, the ground truth that is not ignored, and the number of categories."""
    ground_truth = read_ground_truth(data)
    categories = ground_truth.select_categories()
    targets = make_targets(ground_truth, categories)
    detections = make_detections(results, ground_truth, iou_type)
    records = match_detections(detections, ground_truth, targets, categories, max(proposal_nums))
    return join_records([records]), targets.positives(), len(categories)


def copied(data, results, image_ids, weights):
    """Return the data set with each image repeated `weight` times, copies side by side and ids renumbered."""
    new = dict(data, images=[], annotations=[])
    new_results = []
    by_id = {image['id']: image for image in data['images']}
    for image_id, weight in zip(image_ids, weights, strict=True):
        for _ in range(int(weight)):
            number = len(new['images']) + 1
            new['images'].append({**by_id[image_id], 'id': number})
            for entry in data['annotations']:
                if entry['image_id'] == image_id:
                    new['annotations'].append({**entry, 'image_id': number, 'id': len(new['annotations']) + 1})
            new_results += [{**entry, 'image_id': number} for entry in results if entry['image_id'] == image_id]
    return new, new_results


@st.composite
def cases(draw, iou_type='bbox'):
    """Draw annotations and results: ties, crowds, empty images, missing categories, gaps in ids, areas on the bounds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_images, num_categories = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    whole_numbers = draw(st.booleans())
    crowd_share = draw(st.sampled_from([0, .3]))
    many = draw(st.sampled_from([0, 0, 0, 130])) if iou_type == 'bbox' else 0
    most_targets, most_detections = draw(st.integers(0, 6)), draw(st.integers(0, 8))
    levels = draw(st.sampled_from([2, 5, 1000]))
    height, width = 130, 170

    def box():
        side = rng.choice([8, 16, 32, 33, 96, 100], 2) * (1 if whole_numbers else rng.uniform(.8, 1.2, 2))
        corner = rng.uniform(0, 70, 2)
        corner = np.round(corner / 16) * 16 if whole_numbers else corner
        return [float(value) for value in (*corner, *side)]

    def near(other):
        shift = rng.choice([0, 0, 1, 4], 4) * rng.choice([-1, 1], 4)
        moved = np.array(other) + (shift if whole_numbers else shift * rng.random(4))
        return [float(value) for value in (*moved[:2], *np.maximum(moved[2:], 1))]

    image_ids = [int(value) for value in rng.choice(1000, num_images, replace=False)]
    category_ids = [int(value) for value in rng.choice(90, num_categories, replace=False)]
    annotations, results = [], []
    for image_id in image_ids:
        count = int(rng.integers(0, most_targets + 1))
        for _ in range(count):
            same = annotations and annotations[-1]['image_id'] == image_id and rng.random() < .3
            bbox = list(annotations[-1]['bbox']) if same else box()
            area = bbox[2] * bbox[3] * rng.choice([1, .5]) if rng.random() < .7 else rng.choice([1024., 9216., 0., 500.])
            annotations.append(dict(image_id=image_id, category_id=int(rng.choice(category_ids)), bbox=bbox,
                                    area=float(area), iscrowd=int(rng.random() < crowd_share)))
    annotation_ids = rng.choice(np.arange(1, 10 * len(annotations) + 1), len(annotations), replace=False)
    for annotation, annotation_id in zip(annotations, annotation_ids, strict=True):
        annotation['id'] = int(annotation_id)
        if rng.random() < .1:
            annotation['ignore'] = 1
    for image_id in image_ids:
        here = [annotation for annotation in annotations if annotation['image_id'] == image_id]
        for _ in range(int(rng.integers(0, most_detections + 1)) + (many if image_id == image_ids[0] else 0)):
            source = here[rng.integers(len(here))] if here and rng.random() < .8 else None
            keep_category = source and rng.random() < .9
            results.append(dict(image_id=image_id, bbox=near(source['bbox']) if source else box(),
                                category_id=source['category_id'] if keep_category else int(rng.choice(category_ids)),
                                score=float(rng.integers(levels) / levels)))
    rng.shuffle(results)
    if iou_type == 'segm':
        for entry in annotations:
            entry['segmentation'] = shape(entry['bbox'], height, width, rng, polygon=rng.random() < .5)
        for entry in results:
            entry['segmentation'] = shape(entry.pop('bbox'), height, width, rng, polygon=False)
    data = dict(images=[dict(id=image_id, height=height, width=width) for image_id in image_ids], annotations=annotations,
                categories=[dict(id=category_id, name=f'c{category_id}') for category_id in category_ids])
    return data, results


def shape(bbox, height, width, rng, polygon):
    """Return a rectangle or ellipse inside a box, as a polygon or a compressed run-length code."""
    x, y, w, h = bbox
    if polygon:
        return [[x, y, x + w, y, x + w, y + h, x, y + h]]
    ys, xs = np.mgrid[:height, :width] + .5
    mask = (xs > x) & (xs < x + w) & (ys > y) & (ys < y + h)
    if rng.random() < .5:
        mask &= ((xs - x - w / 2) / w)**2 + ((ys - y - h / 2) / h)**2 < .25
    rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': [height, width], 'counts': rle['counts'].decode()}
