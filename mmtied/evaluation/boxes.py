"""Box arithmetic on exact real rectangles: areas are summed over the cells between box edges, not over pixels."""

import numpy as np


def clip_boxes(boxes_xywh: np.ndarray, image_size: tuple[int, int] | np.ndarray) -> np.ndarray:
    """Clip (N, 4) xywh boxes to one image size (height, width), or to one each, (N, 2); return xyxy."""
    left_top = boxes_xywh[:, :2]
    xyxy = np.concatenate([left_top, left_top + boxes_xywh[:, 2:]], axis=1)
    width_height = np.asarray(image_size, dtype=np.float64)[..., ::-1]
    return np.clip(xyxy, 0, np.concatenate([width_height, width_height], axis=-1))


def areas_under_others(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the area of each (..., N, 4) xyxy box that other boxes cover, and the box's area, shape (..., N) each."""
    areas = box_areas(boxes)
    if boxes.shape[-2] == 1:
        return np.zeros_like(areas), areas
    (in_x, widths), (in_y, heights) = _edge_cells(boxes)
    shared = (in_y.swapaxes(-1, -2) @ in_x) >= 2  # cells under two boxes or more
    covered = np.einsum('...nw,...nw->...n', (in_y * heights) @ shared, in_x * widths)
    return np.minimum(covered, areas), areas  # keeps rounding from pushing r past 1


def area_under_two(boxes: np.ndarray) -> tuple[float, float]:
    """Return the area covered by at least two of (N, 4) xyxy boxes, and by at least one."""
    (in_x, widths), (in_y, heights) = _edge_cells(boxes)
    depth, cells = in_y.T @ in_x, np.outer(heights, widths)
    return cells[depth >= 2].sum(), cells[depth >= 1].sum()


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas of (..., N, 4) xyxy boxes, shape (..., N)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def shared_areas(boxes: np.ndarray) -> np.ndarray:
    """Return the pairwise intersection areas of N xyxy boxes, shape (N, N), with the boxes' areas on the diagonal."""
    left_top = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    return np.clip(np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - left_top, 0, None).prod(axis=2)


def _edge_cells(boxes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for x and y, which boxes span each cell between edges, as 0 and 1, and the lengths of the cells.

    Shape:
        Boxes (..., N, 4); returns (..., N, cells) and (..., 1, cells).
    """
    cells = []
    for lows, highs in ((boxes[..., :1], boxes[..., 2:3]), (boxes[..., 1:2], boxes[..., 3:])):
        edges = np.sort(np.concatenate([lows, highs], axis=-2), axis=-2).swapaxes(-1, -2)
        spans = (lows <= edges[..., :-1]) & (edges[..., :-1] < highs)
        cells.append((spans.astype(np.float64), np.diff(edges)))
    return cells
