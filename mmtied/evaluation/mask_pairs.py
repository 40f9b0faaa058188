"""Pairs by the IoU of masks as run-length codes, on the CPU, from exact pixel counts."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pycocotools import mask as mask_api
from torch import Tensor

from mmtied.native import library
from mmtied.native.run_lengths import Codes, intersections

from .inputs.rle import COMPILED_CHUNK, pieces, rle_areas, rle_codes, rle_pixels
from .pairs import Pairs, cell_pairs


def rle_pairs(detection_cells: Tensor, detection_rles: Sequence[dict], target_cells: Tensor,
              target_rle: Callable[[int], dict], crowd: Tensor, min_iou: float, area: Tensor | None = None) -> Pairs:
    """Pairs of any number of images from run-length codes.

    The pixels of two masks bound their IoU from above, so most pairs are left out before any run of theirs is read. The IoU is
    the quotient of two counts of pixels, as pycocotools' (`rleIou` in maskApi.c), so the bits agree too.

    Args:
        detection_cells: Shape (D,) int64, sorted.
        detection_rles: A compressed run-length code for each detection.
        target_cells: Shape (G,) int64, sorted.
        target_rle: Gives the run-length code of the target at a position.
        crowd: Shape (G,) bool.
        min_iou: The smallest IoU of a pair, above 0.
        area: Pixels of each detection's mask, shape (D,); counted here where it is not given.
    """
    device, cells, target_cells = detection_cells.device, detection_cells.cpu(), target_cells.cpu()
    is_crowd = crowd.cpu().numpy()
    area = rle_areas(detection_rles) if area is None else area.cpu().numpy().astype(np.int64)
    faced = torch.isin(target_cells, cells).nonzero()[:, 0].tolist()
    target_rles = {target: target_rle(target) for target in faced}
    target_area = np.zeros(len(target_cells), dtype=np.int64)
    target_area[faced] = rle_areas(list(target_rles.values()))

    columns = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for detection, target in cell_pairs(cells, target_cells):
        detection, target = detection.numpy(), target.numpy()
        most = np.minimum(area[detection], target_area[target])
        kept = _iou(most, area[detection], target_area[target], is_crowd[target]) >= min_iou
        columns.append((detection[kept], target[kept]))
    detection, target = map(np.concatenate, zip(*columns, strict=True))
    if library() is None:
        iou = _iou_by_pycocotools(detection_rles, target_rles, detection, target, is_crowd, cells[detection].numpy())
    else:
        shared = _shared_pixels(detection_rles, target_rles, detection, target)
        iou = _iou(shared, area[detection], target_area[target], is_crowd[target])
    kept = iou >= min_iou
    return Pairs(*(torch.from_numpy(column[kept]).to(device) for column in (detection, target, iou)))


def _iou(shared: np.ndarray, area: np.ndarray, target_area: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """The IoU of pairs from their pixels; for a crowd, the share of the detection that lies inside it."""
    return shared / np.maximum(np.where(crowd, area, area + target_area - shared), 1)


def _shared_pixels(detection_rles: Sequence[dict], target_rles: dict[int, dict], detection: np.ndarray,
                   target: np.ndarray) -> np.ndarray:
    """Pixels that both masks of each pair have, shape (P,) int64; reads the codes of some detections at a time."""
    own, first = np.unique(detection, return_inverse=True)
    codes, pixels = _codes([detection_rles[number] for number in own.tolist()])
    numbers, second = np.unique(target, return_inverse=True)
    other_codes, other_pixels = _codes([target_rles[number] for number in numbers.tolist()])
    found = [np.empty(0, np.int64)]
    for part in pieces(codes, COMPILED_CHUNK):
        here = slice(*np.searchsorted(first, (part.start, part.stop)))
        faced = slice(second[here].min(), second[here].max() + 1)
        found.append(intersections(Codes.of(codes[part], pixels[part]), Codes.of(other_codes[faced], other_pixels[faced]),
                                   first[here] - part.start, second[here] - faced.start))
    return np.concatenate(found)


def _codes(rles: Sequence[dict]) -> tuple[list[bytes], np.ndarray]:
    return rle_codes(rles), rle_pixels(rles)


def _iou_by_pycocotools(detection_rles: Sequence[dict], target_rles: dict[int, dict], detection: np.ndarray, target: np.ndarray,
                        crowd: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The IoU of each pair, shape (P,) float64, cell by cell; `cells` are those of the pairs."""
    found = [np.empty(0)]
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(cells)], strict=False):
        own, row = np.unique(detection[start:end], return_inverse=True)
        others, column = np.unique(target[start:end], return_inverse=True)
        iou = mask_api.iou([detection_rles[number] for number in own.tolist()],
                           [target_rles[number] for number in others.tolist()], crowd[others].astype(np.uint8).tolist())
        found.append(iou[row, column])
    return np.concatenate(found)
