"""Small saved runs for the tests of intervals and comparisons."""

import numpy as np

from mmtied.evaluation.buckets import Evaluation
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.inputs.results import make_detections
from mmtied.evaluation.pipeline import evaluate_detections
from tests.helpers.simulated import many

EDGES = (0, .3, .6, 1)


def small_run(noise=0., data=None, edges=EDGES, proposal_nums=(1, 10, 100), unit='image', num_images=16):
    """Return a run whose boxes are shifted by noise, its report and its groups."""
    made, results = many(num_images=num_images, per_image=10)
    data = data or made
    rng = np.random.default_rng(1)
    results = [dict(entry, bbox=[*(value + noise * float(rng.normal()) for value in entry['bbox'][:2]), *entry['bbox'][2:]])
               for entry in results]
    ground_truth = read_ground_truth(data)
    detections = {'bbox': make_detections(results, ground_truth, 'bbox')}
    evaluated = evaluate_detections(ground_truth, detections, [Evaluation(edges=edges, unit=unit)], proposal_nums)
    return evaluated.saved_run(), evaluated.report, evaluated.plan.groupings[0]
