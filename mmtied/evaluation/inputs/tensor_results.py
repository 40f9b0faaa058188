"""A detector's boxes as tensors on any device, without a results file or an array on the way."""

import torch
from torch import Tensor

from .ground_truth import GroundTruth
from .results import Detections


def tensor_detections(ground_truth: GroundTruth, image_ids: Tensor, category_ids: Tensor, scores: Tensor,
                      boxes_xywh: Tensor) -> Detections:
    """What `evaluate.evaluate_coco` takes, on the device of the tensors.

    Args:
        ground_truth: The annotations that the ids refer to.
        image_ids: Shape (D,) int64.
        category_ids: Shape (D,) int64.
        scores: Shape (D,).
        boxes_xywh: Shape (D, 4), in pixels.

    Raises:
        ValueError: Shapes that do not fit, ids that the annotation file does not have, scores that are not finite, and boxes
            with negative or infinite sides.

    Example:
        >>> from .ground_truth import read_ground_truth
        >>> truth = read_ground_truth({'images': [{'id': 7, 'height': 9, 'width': 9}], 'annotations': [],
        ...                            'categories': [{'id': 3, 'name': 'cat'}, {'id': 5, 'name': 'dog'}]})
        >>> tensor_detections(truth, torch.tensor([7]), torch.tensor([5]), torch.rand(1), torch.tensor([[0, 0, 2., 3.]])).category
        tensor([1])
    """
    one_each = (len(scores),)
    for name, values, shape in (('scores', scores, one_each), ('image_ids', image_ids, one_each),
                                ('category_ids', category_ids, one_each), ('boxes_xywh', boxes_xywh, (*one_each, 4))):
        if values.shape != shape:
            raise ValueError(f'{name}: shape {shape} is needed for {len(scores)} scores, got {tuple(values.shape)}')
    scores, boxes = scores.detach().double(), boxes_xywh.detach().double()
    image, unknown_image = _positions(image_ids, ground_truth.image_ids)
    category, unknown_category = _positions(category_ids, ground_truth.category_ids)
    unusable = {
        'the image id is not in the annotation file': unknown_image,
        'the category id is not in the annotation file': unknown_category,
        'the score must be a finite number': ~torch.isfinite(scores),
        'the box must be four finite numbers [x, y, width, height] with sides of at least 0':
            ~torch.isfinite(boxes).all(1) | (boxes[:, 2:] < 0).any(1),
    }
    where = torch.stack(list(unusable.values()))
    if bool(where.any()):  # the only wait for the device
        kind, number = where.nonzero()[0].tolist()
        raise ValueError(f'detection {number}: {list(unusable)[kind]}; got image id {image_ids[number].item()}, category id '
                         f'{category_ids[number].item()}, score {scores[number].item()}, box {boxes[number].tolist()}')
    return Detections(image, category, scores, boxes[:, 2] * boxes[:, 3], boxes)


def _positions(ids: Tensor, known_ids: object) -> tuple[Tensor, Tensor]:
    """Where each id stands among the sorted known ones, and which are not there."""
    known = torch.as_tensor(known_ids, device=ids.device)
    place = torch.searchsorted(known, ids.long()).clamp(max=max(len(known) - 1, 0))
    return place, known[place] != ids if len(known) else torch.ones_like(ids, dtype=torch.bool)
