"""Small saved runs for the tests of intervals and comparisons."""

from types import SimpleNamespace

import numpy as np
import torch
from test_weighted_ap import many, match_all

from mmtied.evaluation.buckets import assign_buckets, make_buckets
from mmtied.evaluation.evaluate import evaluate_coco
from mmtied.evaluation.ground_truth import read_ground_truth
from mmtied.evaluation.ratios import image_ratios
from mmtied.evaluation.records_file import make_run
from mmtied.evaluation.results import make_detections

EDGES = (0, .3, .6, 1)


def image_groups(ground_truth, edges=EDGES):
    """Groups by the covered ratio of images."""
    buckets = make_buckets(edges)
    of_image = assign_buckets(image_ratios(ground_truth), buckets)
    members = torch.from_numpy(of_image[:, None] == np.arange(len(buckets)))
    return SimpleNamespace(members=members, columns=torch.zeros(len(buckets), dtype=torch.int64))


def small_run(noise=0., data=None, edges=EDGES, proposal_nums=(1, 10, 100)):
    """A run whose boxes are shifted further with more noise, its report and its groups."""
    made, results = many(num_images=16, per_image=10)
    data = data or made
    rng = np.random.default_rng(1)
    results = [dict(entry, bbox=[*(value + noise * float(rng.normal()) for value in entry['bbox'][:2]), *entry['bbox'][2:]])
               for entry in results]
    ground_truth = read_ground_truth(data)
    detections = {'bbox': make_detections(results, ground_truth, 'bbox')}
    report = evaluate_coco(ground_truth, detections, edges=edges, proposal_nums=proposal_nums)
    records, positives, _ = match_all(data, results, 'bbox', proposal_nums)
    groups = image_groups(ground_truth, edges)
    run = make_run(report, {'bbox': records}, positives, [groups], ground_truth, ground_truth.select_categories(), proposal_nums)
    return run, report, groups
