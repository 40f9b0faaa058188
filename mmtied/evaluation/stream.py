"""Match predictions batch by batch on any device, keep only small records, and join the records of several processes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from .accumulate import Records, no_records
from .inputs.arrays import GroundTruth
from .inputs.image_ids import AMBIGUOUS
from .inputs.results import Detections
from .inputs.rle import rle_areas, to_rle
from .masks import TargetMasks, dense_mask_iou
from .matching import FederatedRules, Pairs, box_pairs, match_ranked, pairs_above, rank_detections
from .parallel import operations_in_one_thread
from .targets import Targets, make_targets

#: Detections below this score are not drawn, and ignored in pictures.
SCORE_THRESHOLD = .3
#: Maximum detections per image that are kept for drawing.
MOST_SHOWN = 30
#: Key of boxes that are drawn but not evaluated.
TO_DRAW = 'drawn'
#: An empty table of detections to draw: image, category, score, x, y, width, height.
_NO_TABLE = torch.empty(0, 7, dtype=torch.float64)


class Candidates(NamedTuple):
    """One image's N predictions of one IoU type, waiting to be matched to G ground truths."""

    image: int  # position of the image
    labels: Tensor  # (N,) integers
    scores: Tensor  # (N,)
    boxes_xyxy: Tensor | None = None  # (N, 4), for boxes only
    area: Tensor | None = None  # pixels, (N,), for masks only
    iou: Tensor | None = None  # (N, G), for masks only, see `masks.dense_mask_iou`


class _Batch(NamedTuple):
    """Candidates of several images in one table on one device; the `counts` per image stay on the CPU."""

    counts: Tensor
    image: Tensor
    labels: Tensor
    scores: Tensor
    boxes_xyxy: Tensor | None
    area: Tensor | None

    @classmethod
    def of(cls, candidates: Sequence[Candidates]) -> '_Batch':
        device = candidates[-1].scores.device
        counts = torch.tensor([len(part.scores) for part in candidates])
        image = torch.repeat_interleave(torch.tensor([part.image for part in candidates]), counts).to(device)
        columns = [None if column[0] is None else torch.cat([part.to(device) for part in column])
                   for column in list(zip(*candidates, strict=True))[1:5]]
        return cls(counts, image, *columns)


class ImageMatcher:
    """Turns predictions into match records.

    `category_ids` maps labels to category ids, -1 to drop their detections. At most `limit` detections are kept per image and
    category. `outside` marks the annotations outside each instance bucket, see `targets.make_targets`. Without `use_cats`,
    `ground_truth` must come from `GroundTruth.class_agnostic`.
    """

    def __init__(self, ground_truth: GroundTruth, category_ids: Sequence[int], limit: int,
                 outside: np.ndarray | None = None, use_cats: bool = True) -> None:
        self.ground_truth = ground_truth
        ids = np.asarray(category_ids, dtype=np.int64)
        self._label_order = torch.from_numpy(np.argsort(ids, kind='stable')).argsort()
        if not use_cats:
            ids = np.where(ids >= 0, ground_truth.category_ids[0], -1)
        self.use_cats = use_cats
        self.categories = ground_truth.select_categories(ids[ids >= 0])
        self.targets = make_targets(ground_truth, self.categories, outside)
        self.limit = limit
        evaluated = ground_truth.category_ids[self.categories]
        self._place_of_label = torch.from_numpy(np.where(ids >= 0, np.searchsorted(evaluated, ids), -1))
        known = (self._place_of_label >= 0).nonzero()[:, 0]
        label_of_place = torch.zeros(max(len(evaluated), 1), dtype=torch.int64)  # stays 0 without use_cats
        if use_cats:
            label_of_place[self._place_of_label[known]] = known
        self._target_labels = label_of_place[self.targets.cells % self.targets.num_categories].tolist()
        self._rules = FederatedRules(ground_truth, self.categories) if ground_truth.federated else None
        self._crowd = self.targets.crowd.tolist()
        self._masks = TargetMasks(ground_truth)
        self._on_device: dict[torch.device, tuple[Targets, Tensor]] = {}

    def position(self, image_id: int | str) -> int:
        """Return the index of an image in `image_ids`; raise a ValueError if the annotations do not have it."""
        position, _ = self.ground_truth.images.find(image_id)
        if position < 0:
            lookup = self.ground_truth.images
            several = ' (several images have it as file name)' if position == AMBIGUOUS else ''
            raise ValueError(f'predictions for image id {image_id!r}, which is not in {self.ground_truth.source}; it has ids '
                             f'such as {lookup.image_ids[0]!s}{several}')
        return position

    def take_boxes(self, image_id: int | str, labels: Tensor, scores: Tensor, boxes_xyxy: Tensor) -> Candidates:
        """Copy labels (N,), scores (N,) and boxes (N, 4) without synchronizing with the device."""
        _check_shapes(image_id, labels, scores, boxes=(boxes_xyxy, 4))
        return Candidates(self.position(image_id), labels.clone(), scores.clone(), boxes_xyxy.clone())

    def take_masks(self, image_id: int | str, labels: Tensor, scores: Tensor, masks: Tensor | Sequence[dict]) -> Candidates:
        """Compare masks, (N, height, width) bool or N run-length codes, with the ground truth; keep only areas and IoU."""
        image = self.position(image_id)
        size = self.ground_truth.image_sizes[image].tolist()
        here = slice(self.targets.starts[image], self.targets.starts[image + 1])
        annotations, crowd = self.targets.annotation[here].tolist(), self._crowd[here]
        if isinstance(masks, Tensor):
            _check_shapes(image_id, labels, scores)
            if len(masks) and list(masks.shape[1:]) != size:
                raise ValueError(f'image id {image_id}: predicted masks have size {list(masks.shape[1:])}, '
                                 f'the image {size} (height, width)')
            _check_shapes(image_id, labels, scores, masks=(masks, *masks.shape[1:]))
            crops = [self._masks.crop(annotation) for annotation in annotations]
            area, iou = dense_mask_iou(masks, labels if self.use_cats else torch.zeros_like(labels), crops,
                                       self._target_labels[here], crowd)
        else:
            _check_shapes(image_id, labels, scores, masks=(torch.empty(len(masks)), ))
            rles = [to_rle(rle, *size, f'image id {image_id}') for rle in masks]
            targets = [self.ground_truth.rle(annotation) for annotation in annotations]
            area = rle_areas(rles, lambda number: f'image id {image_id}: mask {number}')
            iou = mask_api.iou(rles, targets, list(map(int, crowd))) if rles and targets else np.zeros((len(rles), len(targets)))
            area, iou = torch.from_numpy(area), torch.from_numpy(iou)
        return Candidates(image, labels.clone(), scores.clone(), area=area.to(scores.device), iou=iou.to(scores.device))

    def match(self, candidates: Sequence[Candidates]) -> Records:
        """Match candidates of one IoU type from different images, on the device of the last one.

        Raises a ValueError that names the image for scores or boxes that are not finite, or unknown labels.
        """
        if not candidates:
            return no_records(self.targets.ignored.shape[1])
        batch = _Batch.of(candidates)
        self._check_values(batch)
        targets, place_of_label = self._moved(batch.scores.device)
        labels, area, order = batch.labels.long(), batch.area, None
        if not self.use_cats:  # like COCOeval, category by category
            order = torch.argsort(self._label_order.to(labels.device)[labels], stable=True)
        if batch.boxes_xyxy is not None:
            boxes = batch.boxes_xyxy.double()  # CocoMetric also subtracts in float64
            boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
            area = boxes[:, 2] * boxes[:, 3]

        def find_pairs(cells: Tensor, chosen: Tensor) -> Pairs:
            if batch.boxes_xyxy is not None:
                return box_pairs(cells, boxes[chosen], targets.cells, targets.boxes_xywh, targets.crowd)
            return _mask_pairs(candidates, batch.counts, cells, chosen, targets)

        return match_ranked(batch.image, place_of_label[labels], batch.scores.double(), area, targets, self.limit, find_pairs,
                            self._rules, order)

    def shown(self, candidates: Sequence[Candidates]) -> Tensor:
        """Return the detections to draw, from candidates with boxes; see `shown_table`."""
        batch = _Batch.of(candidates)
        place = self._moved(batch.scores.device)[1][batch.labels.long()]
        known = (place >= 0).nonzero()[:, 0]
        category = torch.from_numpy(self.categories).to(batch.scores.device)[place[known]]
        return shown_table(batch.image[known], category, batch.scores[known], batch.boxes_xyxy[known])

    def _moved(self, device: torch.device) -> tuple[Targets, Tensor]:
        """Return the targets and the position of each label's category on a device, copied there once."""
        if device not in self._on_device:
            self._on_device[device] = self.targets.to(device), self._place_of_label.to(device)
        return self._on_device[device]

    def _check_values(self, batch: _Batch) -> None:
        num_labels = len(self._place_of_label)
        unusable = {
            'scores must be finite numbers; the model may have diverged': ~torch.isfinite(batch.scores),
            f'labels must be from 0 to {num_labels - 1}, the classes of the data set; label_names=[...] lists those of a model '
            'with other classes': (batch.labels < 0) | (batch.labels >= num_labels),
        }
        if batch.boxes_xyxy is not None:
            unusable['boxes must be finite numbers; the model may have diverged'] = ~torch.isfinite(batch.boxes_xyxy).all(1)
        where = torch.stack(list(unusable.values()))
        if bool(where.any()):
            kind, detection = where.nonzero()[0].tolist()
            image_id = self.ground_truth.image_ids[int(batch.image[detection])]
            raise ValueError(f'image id {image_id}: predicted {list(unusable)[kind]}')


def as_masks(masks: Any) -> Tensor | list[dict]:
    """Convert a tensor or array to boolean masks on its device; pass run-length codes through.

    Floats are thresholded at 0.5, mmdet's default `mask_thr_binary`; nonzero integers are set.
    """
    if isinstance(masks, list | tuple) and (not masks or isinstance(masks[0], dict)):
        return list(masks)
    masks = torch.as_tensor(masks).detach()
    return masks > .5 if masks.is_floating_point() else masks.bool()


class MatchedImages(NamedTuple):
    """Match records of some images, exchanged between batches and processes."""

    images: Tensor  # positions of the images, including those without detections, (M,) int64
    shown: Tensor  # the detections to draw, see `shown_table`
    inverted: Tensor  # the image has a box with x2 < x1 or y2 < y1, (M,) bool
    records: dict[str, Records]  # by IoU type, with positions in 32 bits, see `Records.narrow`

    def tensors(self) -> list[Tensor]:
        """Flatten to a list of tensors."""
        return [self.images, self.shown, self.inverted, *(column for table in self.records.values() for column in table)]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], iou_types: Sequence[str]) -> 'MatchedImages':
        """Undo `tensors`."""
        width = len(Records._fields)
        first = len(tensors) - width * len(iou_types)
        return cls(*tensors[:first], {iou_type: Records(*tensors[first + width * number:first + width * (number + 1)])
                                      for number, iou_type in enumerate(iou_types)})


@operations_in_one_thread()
def match_images(matcher: ImageMatcher, candidates: Sequence[Mapping[str, Candidates]]) -> MatchedImages:
    """Match images together for each IoU type; keep the first of repeated images. Boxes under `TO_DRAW` are only drawn."""
    by_image: dict[int, Mapping[str, Candidates]] = {}
    for entry in candidates:
        by_image.setdefault(next(iter(entry.values())).image, entry)
    records = {iou_type: matcher.match([entry[iou_type] for entry in by_image.values()]).narrow()
               for iou_type in candidates[0] if iou_type != TO_DRAW}
    device = next(iter(records.values())).image.device
    shown, inverted = _NO_TABLE.to(device), torch.zeros(len(by_image), dtype=torch.bool, device=device)
    with_boxes = [entry.get('bbox', entry.get(TO_DRAW)) for entry in by_image.values()]
    if None not in with_boxes:
        shown = matcher.shown(with_boxes)
    if 'bbox' in records:
        boxes = [part.boxes_xyxy.to(device) for part in with_boxes]
        inverted = torch.stack([(corners[:, 2:] < corners[:, :2]).any() for corners in boxes])
    return MatchedImages(torch.tensor(list(by_image), dtype=torch.int64, device=device), shown, inverted, records)


def join_once(parts: Sequence[MatchedImages], iou_types: Sequence[str], num_columns: int, num_images: int) -> MatchedImages:
    """Join parts on the device of the last one, keeping each image's records from the first part that has it.

    No part may repeat an image; `num_columns` is the width of the tables if there are no parts.
    """
    device = parts[-1].images.device if parts else torch.device('cpu')
    nothing = {iou_type: no_records(num_columns).narrow() for iou_type in iou_types}
    no_images = torch.empty(0, dtype=torch.int64)
    kept = [MatchedImages(no_images, _NO_TABLE, no_images.bool(), nothing)]
    is_new = torch.ones(num_images, dtype=torch.bool, device=device)
    for part in parts:
        part = MatchedImages.from_tensors([column.to(device) for column in part.tensors()], iou_types)
        new = is_new[part.images]
        kept.append(MatchedImages(part.images[new], part.shown[is_new[part.shown[:, 0].long()]], part.inverted[new],
                                  {name: table.select(is_new[table.image.long()]) for name, table in part.records.items()}))
        is_new[part.images] = False
    columns = zip(*(part.tensors() for part in kept), strict=True)
    return MatchedImages.from_tensors([torch.cat([part.to(device) for part in column]) for column in columns], iou_types)


def shown_table(image: Tensor, category: Tensor, scores: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Select the detections to draw as a small table that processes can exchange.

    The columns are image, category, score, x, y, width and height, float64, with at most `MOST_SHOWN` rows per image,
    highest score first.

    Example:
        >>> scores, boxes = torch.tensor([0.2, 0.9]), torch.tensor([[0., 0., 4., 4.], [1., 2., 5., 5.]])
        >>> shown_table(torch.tensor([7, 7]), torch.tensor([0, 1]), scores, boxes).tolist()
        [[7.0, 1.0, 0.8999999761581421, 1.0, 2.0, 4.0, 3.0]]
    """
    drawable = torch.isfinite(boxes_xyxy).all(1) & (boxes_xyxy != 0).any(1)  # mask-only models predict zeros
    certain = ((scores >= SCORE_THRESHOLD) & drawable).nonzero()[:, 0]
    scores = scores[certain].double()
    order, _ = rank_detections(image[certain], scores, MOST_SHOWN)
    scores, certain = scores[order], certain[order]
    boxes = boxes_xyxy[certain].double()
    columns = [image[certain, None], category[certain, None], scores[:, None], boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]
    return torch.cat([column.double() for column in columns], dim=1)


def shown_detections(table: Tensor) -> Detections:
    """Convert the table from `shown_table` to detections."""
    rows = table.cpu().numpy()
    boxes = rows[:, 3:]
    return Detections(rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 2], boxes[:, 2] * boxes[:, 3], boxes)


def _mask_pairs(candidates: Sequence[Candidates], counts: Tensor, cells: Tensor, order: Tensor, targets: Targets) -> Pairs:
    """Look up the pairs within a cell in the images' IoU tables."""
    device = cells.device
    iou = torch.cat([part.iou.to(device).flatten() for part in candidates])
    # iou[row[detection] + target] is the IoU of a detection and a target.
    first = torch.tensor([targets.starts[part.image] for part in candidates])
    width = torch.tensor([part.iou.shape[1] for part in candidates])
    table = (counts * width).cumsum(0) - counts * width
    in_image = torch.arange(int(counts.sum())) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    row = torch.repeat_interleave(table - first, counts) + in_image * torch.repeat_interleave(width, counts)
    row = row.to(device)[order]
    return pairs_above(cells, targets.cells, lambda detection, target: iou[row[detection] + target])


def _check_shapes(image_id: int | str, labels: Tensor, scores: Tensor, **more: tuple) -> None:
    """Raise a ValueError unless all shapes fit that of the scores."""
    expected = {'scores': (scores, ), 'labels': (labels, ), **more}
    for name, (values, *rest) in expected.items():
        if list(values.shape) != [len(scores), *rest]:
            raise ValueError(f'image id {image_id}: predicted {name} have shape {list(values.shape)}, '
                             f'which does not fit scores of shape {list(scores.shape)}')
