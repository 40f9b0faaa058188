"""Masks: IoU with the ground truth from exact pixel counts, and the overlaps behind occlusion ratios.

Overlaps are computed from run-length codes without decoding: memory grows with the outlines, not with the image.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from mmtied.native import Codes, intersections, library

from .boxes import box_areas
from .inputs.ground_truth import GroundTruth
from .inputs.rle import COMPILED_CHUNK, inside, iter_chunks, rle_areas, rle_codes, rle_pixels, segments
from .matching import Pairs, min_iou, pairs_above
from .parallel import available_threads

#: Most pixels of an image's masks that are decoded together, one byte each.
_MOST_PIXELS = 1 << 32
#: Bytes of packed masks to cache; val2017's 36 781 annotations need about 100 MB.
MAX_BYTES = 256 << 20


class Crop(NamedTuple):
    """A mask cropped to its bounding box."""

    mask: np.ndarray  # (height, width) bool
    top: int  # row of the crop's first row in the image
    left: int  # column of the crop's first column in the image
    pixels: int  # number of set pixels

    @classmethod
    def of(cls, rle: dict) -> 'Crop':
        """Decode a run-length code and crop it to its bounding box."""
        left, top, width, height = (int(side) for side in mask_api.toBbox(rle))
        mask = np.ascontiguousarray(mask_api.decode(rle)[top:top + height, left:left + width]).view(bool)
        return cls(mask, top, left, int(np.count_nonzero(mask)))


class TargetMasks:
    """The cropped masks of a data set's annotations, decoded on first use and cached as packed bits.

    Once the cache holds `max_bytes`, further masks are decoded on every use. Nothing is evicted: every epoch reads all masks in
    turn, so evicting the oldest would drop each just before it is needed.
    """

    def __init__(self, ground_truth: GroundTruth, max_bytes: int = MAX_BYTES) -> None:
        self.ground_truth = ground_truth
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._packed: dict[int, tuple] = {}

    def crop(self, annotation: int) -> Crop:
        """Return the mask of the annotation at a position; raise a ValueError if it has no usable segmentation."""
        if annotation in self._packed:
            bits, shape, *rest = self._packed[annotation]
            return Crop(np.unpackbits(bits, count=shape[0] * shape[1]).view(bool).reshape(shape), *rest)
        self.ground_truth.check_masks(np.array([annotation]))
        crop = Crop.of(self.ground_truth.rle(annotation))
        bits = np.packbits(crop.mask)
        if self.num_bytes + bits.nbytes <= self.max_bytes:
            self.num_bytes += bits.nbytes
            self._packed[annotation] = bits, crop.mask.shape, *crop[1:]
        return crop


def rle_pairs(detection_cells: Tensor, detection_rles: Sequence[dict], target_cells: Tensor,
              target_rle: Callable[[int], dict], crowd: Tensor, least: float | None = None, area: Tensor | None = None) -> Pairs:
    """Return the pairs whose mask IoU reaches a minimum, for any number of images, from run-length codes on the CPU.

    The areas of two masks bound their IoU, which rules out most pairs before any runs are read. The IoU is the quotient of two
    pixel counts, as in pycocotools (`rleIou` in maskApi.c), so it is bit-identical.

    Cells are sorted, (D,) and (G,) int64. `target_rle` returns the run-length code of the target at a position, `least` is the
    smallest IoU of a pair (default: `min_iou()`), and `area` holds the pixels of the detections' masks if known.
    """
    least = min_iou() if least is None else least
    device, cells, target_cells, crowd = detection_cells.device, detection_cells.cpu(), target_cells.cpu(), crowd.cpu()
    area = torch.from_numpy(rle_areas(detection_rles)) if area is None else area.cpu().long()
    faced = torch.isin(target_cells, cells).nonzero()[:, 0]
    target_rles = {target: target_rle(target) for target in faced.tolist()}
    target_area = torch.zeros_like(target_cells)
    target_area[faced] = torch.from_numpy(rle_areas(list(target_rles.values())))

    def iou_of(shared: Tensor, detection: Tensor, target: Tensor) -> Tensor:
        union = torch.where(crowd[target], area[detection], area[detection] + target_area[target] - shared)
        return shared.double() / union.clamp(min=1)

    detection, target, _ = pairs_above(cells, target_cells, lambda detection, target: iou_of(
        torch.minimum(area[detection], target_area[target]), detection, target), least)
    rows = detection_rles, target_rles, detection.numpy(), target.numpy()
    if library() is None:
        iou = torch.from_numpy(_iou_by_pycocotools(*rows, crowd.numpy(), cells[detection].numpy()))
    else:
        iou = iou_of(torch.from_numpy(_shared_pixels(*rows)), detection, target)
    kept = iou >= least
    return Pairs(*(column[kept].to(device) for column in (detection, target, iou)))


def dense_mask_iou(masks: Tensor, labels: Tensor, crops: Sequence[Crop], target_labels: Sequence[int],
                   crowd: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Compute the areas of one image's boolean masks and their IoU with every ground truth, on the device of the masks.

    On the CPU, only pairs of one category whose areas allow a match are compared. On a GPU that selection would synchronize with
    the device, which costs more than counting every pair.

    `masks` are (N, height, width) bool, `crops` the masks of the G ground truths; for a crowd, IoU is the share of the mask
    inside it. Returns the pixels of each mask, (N,) int64, and IoU, (N, G) float64. Pairs of different labels, or with an IoU
    below `min_iou()`, may read 0.
    """
    device = masks.device
    if device.type == 'cpu':
        area, shared = _count_on_cpu(masks.numpy(), labels.cpu().numpy(), crops, target_labels, crowd, min_iou())
    else:
        area, shared = count_all(masks, crops)
    pixels, crowd = torch.tensor([[crop.pixels for crop in crops], crowd], dtype=torch.int64).to(device, non_blocking=True)
    union = torch.where(crowd.bool(), area[:, None], area[:, None] + pixels - shared)
    return area, torch.where(shared > 0, shared.double() / union.double(), 0)


def count_all(masks: Tensor, crops: Sequence[Crop]) -> tuple[Tensor, Tensor]:
    """Count the pixels of each mask, (N,), and those it shares with each crop, (N, G), both int64, without a device sync."""
    shared = torch.zeros(len(masks), len(crops), dtype=torch.int64, device=masks.device)
    for target, (mask, top, left, _) in enumerate(crops):
        mask = torch.from_numpy(mask).to(masks.device, non_blocking=True)
        shared[:, target] = (masks[:, top:top + mask.shape[0], left:left + mask.shape[1]] & mask).sum((1, 2))
    return masks.sum((1, 2)), shared


def masks_under_masks(boxes: np.ndarray, rles: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Count the pixels of each mask that other masks cover, and all its pixels, (N,) each; `boxes` are unused.

    The compressed run-length codes belong to one image and were checked by `inputs.rle.rle_areas`.
    """
    points, ends, depth = segments(rles)
    lengths, covered, areas = np.diff(points), np.zeros(len(rles)), np.zeros(len(rles))
    for number, own in enumerate(ends):
        held = inside(own, points)
        covered[number], areas[number] = lengths[held & (depth >= 2)].sum(), lengths[held].sum()
    return covered, areas


def boxes_under_masks(boxes: np.ndarray, rles: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Return the area of each box that other instances' masks cover, and the box's area, shape (N,) each.

    Boxes are (N, 4) xyxy, clipped to the image. Pixels at a box's border count by their share inside it.
    """
    points, ends, depth = segments(rles)
    covered = np.zeros(len(boxes))
    for number, (box, own) in enumerate(zip(boxes, ends, strict=True)):
        by_others = depth - inside(own, points) >= 1
        covered[number] = np.diff(_area_before(points, box, rles[number]['size'][0]))[by_others].sum()
    areas = box_areas(boxes)
    return np.clip(covered, 0, areas), areas


def array_of(codes: Sequence[dict]) -> np.ndarray:
    """Return codes as an object array, which can be indexed like an array of masks."""
    array = np.empty(len(codes), dtype=object)
    array[:] = codes
    return array


def encoded(masks: np.ndarray) -> np.ndarray:
    """Encode masks, shape (N, height, width) bool."""
    return array_of(mask_api.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8)) if len(masks) else [])


def decoded(codes: Sequence[dict], where: str) -> np.ndarray:
    """Decode the masks of one image to (N, height, width) bool; above 4 GiB raise a ValueError that starts with `where`."""
    height, width = codes[0]['size']
    pixels = len(codes) * height * width
    if pixels > _MOST_PIXELS:
        raise ValueError(f'{where} decodes the masks of {len(codes)} instances at {height} x {width} pixels, which takes '
                         f'{pixels / 2**30:.1f} GiB; register it with takes_codes=True')
    return mask_api.decode(list(codes)).transpose(2, 0, 1).astype(bool)


def _count_on_cpu(masks: np.ndarray, labels: np.ndarray, crops: Sequence[Crop], target_labels: Sequence[int],
                  crowd: Sequence[bool], least: float) -> tuple[Tensor, Tensor]:
    """Count like `count_all`, with 0 shared pixels for pairs that cannot match."""
    area = np.array([np.count_nonzero(mask) for mask in masks], dtype=np.int64)
    shared = np.zeros((len(masks), len(crops)), dtype=np.int64)
    for target, (mask, top, left, pixels) in enumerate(crops):
        smaller, larger = np.minimum(area, pixels), area if crowd[target] else np.maximum(area, pixels)
        possible = (labels == target_labels[target]) & (smaller >= least * larger)
        window = np.s_[top:top + mask.shape[0], left:left + mask.shape[1]]
        for detection in np.flatnonzero(possible).tolist():
            shared[detection, target] = np.count_nonzero(masks[detection][window] & mask)
    return torch.from_numpy(area), torch.from_numpy(shared)


def _shared_pixels(detection_rles: Sequence[dict], target_rles: dict[int, dict], detection: np.ndarray,
                   target: np.ndarray) -> np.ndarray:
    """Count the pixels that the masks of each pair share, shape (P,) int64, in chunks of detections."""
    own, first = np.unique(detection, return_inverse=True)
    own_rles = [detection_rles[number] for number in own.tolist()]
    codes, pixels = rle_codes(own_rles), rle_pixels(own_rles)
    others, second = np.unique(target, return_inverse=True)
    other_rles = [target_rles[number] for number in others.tolist()]
    other_codes, other_pixels = rle_codes(other_rles), rle_pixels(other_rles)
    found = [np.empty(0, np.int64)]
    for part in iter_chunks(codes, COMPILED_CHUNK):
        here = slice(*np.searchsorted(first, (part.start, part.stop)))
        faced = slice(second[here].min(), second[here].max() + 1)
        found.append(intersections(Codes.of(codes[part], pixels[part]), Codes.of(other_codes[faced], other_pixels[faced]),
                                   first[here] - part.start, second[here] - faced.start, available_threads()))
    return np.concatenate(found)


def _iou_by_pycocotools(detection_rles: Sequence[dict], target_rles: dict[int, dict], detection: np.ndarray, target: np.ndarray,
                        crowd: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Compute the IoU of each pair, shape (P,) float64, cell by cell, from the cell of each pair."""
    found = [np.empty(0)]
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(cells)], strict=False):
        own, row = np.unique(detection[start:end], return_inverse=True)
        others, column = np.unique(target[start:end], return_inverse=True)
        iou = mask_api.iou([detection_rles[number] for number in own.tolist()],
                           [target_rles[number] for number in others.tolist()], crowd[others].astype(np.uint8).tolist())
        found.append(iou[row, column])
    return np.concatenate(found)


def _area_before(points: np.ndarray, box: np.ndarray, height: int) -> np.ndarray:
    """Return the area of an xyxy box that the pixels before each point cover, in column-major order."""
    left, top, right, bottom = box
    column = points // height
    row = points - column * height

    def overlap(low: np.ndarray | int, high: np.ndarray, start: float, end: float) -> np.ndarray:
        return np.maximum(np.minimum(high, end) - np.maximum(low, start), 0)

    whole, part = (bottom - top) * overlap(0, column, left, right), overlap(0, row, top, bottom)
    return whole + part * overlap(column, column + 1, left, right)
