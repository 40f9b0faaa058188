"""Generate a data set of textured shapes with controlled occlusion, in COCO's layout on disk.

An image depends only on the recipe (with its seed), the split and the image's index. So any number of processes can share the
work, and a larger data set starts with the images of a smaller one.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from mmtied.atomic import atomic_folder
from mmtied.compat import is_installed

from .layout import MAX_SHAPES, Layout, find_layout
from .shapes import CATEGORIES, paint

#: COCO's names, so that a COCO config needs only another data_root and other class names.
SPLITS = ('train2017', 'val2017')
#: Default bucket edges for r above 0.
RATIO_EDGES = tuple(tenth / 10 for tenth in range(10))
_DESCRIPTION = 'mmtied occluded shapes'
_JPEG_QUALITY = 95
#: Windows can wait for at most 61 processes at once.
_MOST_WORKERS = 61 if sys.platform == 'win32' else sys.maxsize
#: Order in which `spread_position` visits the tenths of an interval; any first few are spread over it.
_DIGITS = (0, 5, 2, 7, 4, 9, 1, 6, 3, 8)


def make_occluded_shapes(out: str | os.PathLike, *, num_images: int, num_val_images: int | None = None, seed: int = 0,
                         size: int = 160, objects: tuple[int, int] = (3, 8), ratio_edges: Sequence[float] = RATIO_EDGES,
                         ratio_weights: Sequence[float] | None = None, zero_share: float = 0.1, tolerance: float = 0.005,
                         min_visible: float = 0.25, workers: int | None = None, overwrite: bool = False,
                         progress: bool = False) -> dict[str, Path]:
    """Generate a data set of occluded shapes in COCO's layout.

    Writes train2017/, val2017/ and annotations/instances_{train,val}2017.json to `out` atomically. Masks, boxes and areas are
    those of the visible parts. Each image has its `occlusion_ratio` (definition `covered` of `mmtied.evaluation.occlusion`, from
    the boxes in the file), each annotation the `visible` fraction of its shape.

    Args:
        out: Folder to create. It may exist if it is empty.
        num_images: Number of training images, at least 1.
        num_val_images: Number of validation images, at least 1; by default a fifth of the training images, but at least 10.
        seed: Random seed, at least 0. The same seed and options give the same bytes.
        size: Height and width of the images in pixels, at least 64.
        objects: Smallest and largest number of objects in an image, from 2 to 100.
        ratio_edges: Increasing bucket edges in [0, 1] for occlusion ratios above 0. Few layouts exist above 0.9.
        ratio_weights: Weight of each bucket; by default its width, so that r is uniform from the first edge to the last.
        zero_share: Fraction of images with r = 0, in [0, 1].
        tolerance: Largest difference of an image's r from its target; r never leaves the target's bucket.
        min_visible: Smallest visible fraction of a shape, in [0, 1); at least 30 pixels are always visible.
        workers: Number of processes (default: the processors available to this process).
        overwrite: Replace a data set that this function made; anything else is never replaced.
        progress: Show a progress bar if rich is installed.

    Returns:
        The annotation file of each split: ``{'train2017': Path, 'val2017': Path}``.

    Raises:
        ValueError: An argument is out of range, or no layout with a target ratio was found.
        FileExistsError: `out` is not empty, and `overwrite` is not set or it is not a data set made by this function.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = make_occluded_shapes(Path(folder) / 'shapes', num_images=3, num_val_images=1, workers=1)
        ...     [image['file_name'] for image in json.loads(paths['train2017'].read_text())['images']]
        ['000000000001.jpg', '000000000002.jpg', '000000000003.jpg']
    """
    num_images = _check_integer('num_images', num_images, least=1)
    num_val = max(num_images // 5, 10) if num_val_images is None else _check_integer('num_val_images', num_val_images, least=1)
    workers = _check_integer('workers', _num_processors() if workers is None else workers, least=1)
    recipe = Recipe(seed, size, tuple(objects), min_visible, RatioTargets(ratio_edges, ratio_weights, zero_share, tolerance))
    out = Path(out)
    if overwrite:
        _check_is_data_set(out)
    elif out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f'{out} is not empty; name another folder, or replace the data set with --overwrite '
                              '(overwrite=True)')

    with atomic_folder(out, overwrite=overwrite) as folder:
        (folder / 'annotations').mkdir()
        with _mapper(workers) as run:
            for split, num in zip(SPLITS, (num_images, num_val), strict=True):
                (folder / split).mkdir()
                records = run(partial(_write_image, recipe, folder, split), range(num))
                images, annotations = zip(*_with_progress(records, num, split, progress), strict=True)
                info = {'description': _DESCRIPTION, 'version': '1.0', 'split': split, 'recipe': asdict(recipe)}
                contents = json.dumps(_coco_contents(images, annotations, info))
                _annotation_path(folder, split).write_text(contents, encoding='utf-8')
    return {split: _annotation_path(out, split) for split in SPLITS}


@dataclass(frozen=True)
class RatioTargets:
    """Distribution of occlusion ratios: a fraction of images has r = 0 exactly, the others are spread over buckets of r > 0.

    A bucket includes its lower edge (unless that is 0) but not its upper one. `make_occluded_shapes` documents the fields.

    Raises:
        ValueError: A field is out of range, or the number of weights is not the number of buckets.

    Example:
        >>> targets = RatioTargets(edges=(0, 0.5, 0.9), weights=(3, 1), zero_share=0.2)
        >>> ranges = [targets.accept(position) for position in (0.1, 0.5, 0.9)]
        >>> [(round(low, 3), round(high, 3)) for low, high in ranges]
        [(0.0, 0.0), (0.245, 0.255), (0.695, 0.705)]
    """

    edges: Sequence[float]
    weights: Sequence[float] | None = None
    zero_share: float = 0.1
    tolerance: float = 0.005

    def __post_init__(self):
        edges = np.asarray(self.edges, dtype=np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not ((np.diff(edges) > 0).all() and edges[0] >= 0 and edges[-1] <= 1):
            raise ValueError(f'ratio_edges={list(self.edges)}, expected two or more increasing numbers from 0 to 1')
        weights = np.diff(edges) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        if weights.shape != (len(edges) - 1, ):
            raise ValueError(f'ratio_weights: {weights.size} given, but {len(edges)} edges make {len(edges) - 1} buckets; '
                             'give one weight for each bucket')
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError(f'ratio_weights={list(self.weights)}, expected numbers of at least 0, not all 0')
        if not 0 <= self.zero_share <= 1:
            raise ValueError(f'zero_share={self.zero_share}, expected a number from 0 to 1')
        if not 0 < self.tolerance <= 1:
            raise ValueError(f'tolerance={self.tolerance}, expected a number above 0 and at most 1')
        object.__setattr__(self, 'edges', tuple(edges.tolist()))
        object.__setattr__(self, 'weights', tuple(weights.tolist()))

    @property
    def shares(self) -> np.ndarray:
        """Fraction of images with r = 0, then that of each bucket; they sum to 1."""
        weights = np.asarray(self.weights)
        return np.concatenate([[self.zero_share], (1 - self.zero_share) * weights / weights.sum()])

    def accept(self, position: float) -> tuple[float, float]:
        """Return the smallest and largest ratio for an image at a quantile in [0, 1) of the distribution."""
        bounds = np.concatenate([[0], np.cumsum(self.shares)])
        bucket = min(int(np.searchsorted(bounds, position, side='right')) - 1, len(self.weights))
        if bucket == 0:
            return 0., 0.
        lower, upper = self.edges[bucket - 1:bucket + 1]
        target = lower + (upper - lower) * (position - bounds[bucket]) / (bounds[bucket + 1] - bounds[bucket])
        above_zero, below_upper = np.nextafter(0, 1), np.nextafter(upper, 0)
        return float(max(target - self.tolerance, lower, above_zero)), float(min(target + self.tolerance, below_upper))


def spread_position(index: int, offset: float) -> float:
    """Return an element of a low-discrepancy sequence in [0, 1): any number of first elements fill the interval evenly.

    The sequence is van der Corput's in base 10 with permuted digits, shifted by an offset: ten successive positions from a
    multiple of ten on are 0.1 apart, a hundred 0.01 apart, and so on.

    Example:
        >>> [round(spread_position(index, offset=0.5), 2) for index in (0, 1, 2, 3, 10, 11)]
        [0.5, 0.0, 0.7, 0.2, 0.55, 0.05]
    """
    position, weight = 0., 0.1
    while index:
        index, digit = divmod(index, 10)
        position += weight * _DIGITS[digit]
        weight /= 10
    return (offset + position) % 1


@dataclass(frozen=True)
class Recipe:
    """Settings shared by all images of a data set; `mmtied.datasets.make_occluded_shapes` documents them."""

    seed: int
    size: int
    objects: tuple[int, int]
    min_visible: float
    ratios: RatioTargets

    def __post_init__(self):
        _check_integer('seed', self.seed, least=0)
        _check_integer('size', self.size, least=64)
        if len(self.objects) != 2 or not 2 <= self.objects[0] <= self.objects[1] <= MAX_SHAPES:
            raise ValueError(f'objects={list(self.objects)}, expected the smallest and largest number in an image, '
                             f'both from 2 to {MAX_SHAPES}')
        if not 0 <= self.min_visible < 1:
            raise ValueError(f'min_visible={self.min_visible}, expected a number of at least 0 and below 1')

    def make_image(self, split: str, index: int) -> tuple[np.ndarray, float, list[dict]]:
        """Return an RGB image, shape (size, size, 3) uint8, its occlusion ratio, and its COCO annotations without ids.

        The result depends only on this recipe, the split and the index.
        """
        split_key = SPLITS.index(split)
        offset = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(split_key, ))).uniform()
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(split_key, index)))
        num_shapes = int(rng.integers(self.objects[0], self.objects[1], endpoint=True))
        accept = self.ratios.accept(spread_position(index, offset))
        layout = find_layout(rng, self.size, num_shapes, accept, self.min_visible)
        return paint(rng, layout.shapes, layout.corners, self.size), layout.ratio, _annotate(layout)


def _check_integer(name: str, value: int, least: int) -> int:
    """Return the value as an int; raise a ValueError unless it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f'{name}={value!r}, expected an integer of at least {least}')
    return int(value)


def _annotate(layout: Layout) -> list[dict]:
    """Return COCO annotations of the visible parts, back to front, without ids, with each shape's visible share."""
    annotations = []
    for index, (shape, box, visible) in enumerate(zip(layout.shapes, layout.boxes_xywh, layout.visible, strict=True)):
        mask = layout.labels == index
        rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        annotations.append({
            'category_id': CATEGORIES.index(shape.category) + 1,
            'bbox': box.astype(float).tolist(),
            'area': float(np.count_nonzero(mask)),
            'iscrowd': 0,
            'segmentation': {'size': list(rle['size']), 'counts': rle['counts'].decode()},
            'visible': round(float(visible), 4),
        })
    return annotations


def _write_image(recipe: Recipe, folder: Path, split: str, index: int) -> tuple[dict, list[dict]]:
    """Write an image, and return its COCO entry and annotations."""
    pixels, ratio, annotations = recipe.make_image(split, index)
    name = f'{index + 1:012d}.jpg'
    encoded = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    (folder / split / name).write_bytes(encoded.tobytes())
    height, width = pixels.shape[:2]
    image = {'id': index + 1, 'file_name': name, 'height': height, 'width': width, 'license': 1, 'occlusion_ratio': ratio}
    return image, annotations


def _coco_contents(images: Sequence[dict], annotations: Sequence[list[dict]], info: dict) -> dict:
    """Return the contents of a COCO annotation file; annotation ids start at 1, as COCOeval takes 0 for "no match"."""
    entries = [{'image_id': image['id'], **entry} for image, of_image in zip(images, annotations, strict=True)
               for entry in of_image]
    return {
        'info': info,
        'licenses': [{'id': 1, 'name': 'CC0 1.0', 'url': 'https://creativecommons.org/publicdomain/zero/1.0/'}],
        'categories': [{'id': number, 'name': name, 'supercategory': 'shape'} for number, name in enumerate(CATEGORIES, 1)],
        'images': images,
        'annotations': [{'id': number, **entry} for number, entry in enumerate(entries, 1)],
    }


def _annotation_path(folder: Path, split: str) -> Path:
    return folder / 'annotations' / f'instances_{split}.json'


@contextmanager
def _mapper(workers: int) -> Iterator:
    """Yield a `map` that distributes the work over processes and keeps the order."""
    if workers == 1:
        yield map
        return
    # OpenCV's threads do not survive a fork; one thread per process is right anyway.
    with ProcessPoolExecutor(min(workers, _MOST_WORKERS), initializer=cv2.setNumThreads, initargs=(0, )) as pool:
        try:
            yield partial(pool.map, chunksize=8)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _with_progress(records: Iterable, num: int, split: str, progress: bool) -> Iterable:
    """Iterate over the records, with a progress bar on stderr if `progress`."""
    if not (progress and is_installed('rich')):
        return records
    from rich.console import Console
    from rich.progress import track
    return track(records, description=f'Drawing {split}', total=num, console=Console(stderr=True))


def _num_processors() -> int:
    """Return the number of processors available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _check_is_data_set(out: Path) -> None:
    """Raise a FileExistsError unless the folder is missing, empty, or a data set by `make_occluded_shapes`."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    made_here = False
    with suppress(OSError, ValueError, KeyError, TypeError):
        info = json.loads(_annotation_path(out, 'val2017').read_text(encoding='utf-8'))['info']
        made_here = info['description'] == _DESCRIPTION
    if not made_here or {path.name for path in out.iterdir()} - {*SPLITS, 'annotations'}:
        raise FileExistsError(f'{out} has files other than a data set of occluded shapes and will not be replaced; name another '
                              'folder')
