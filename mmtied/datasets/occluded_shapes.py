"""A data set that ships as code: textured shapes that occlude each other as much as asked, with COCO's layout on disk.

An image depends on the seed, the split and its index only, so any number of processes may share the work, and a larger
data set starts with the images of a smaller one.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2

from mmtied.atomic import atomic_folder

from .coco_files import SPLITS, annotation_file, annotation_path
from .occluded_image import Recipe, check_integer
from .ratio_targets import RatioTargets

#: Edges of the default buckets of r above 0.
RATIO_EDGES = tuple(tenth / 10 for tenth in range(10))
_DESCRIPTION = 'mmtied occluded shapes'
_JPEG_QUALITY = 95


def make_occluded_shapes(out: str | os.PathLike,
                         *,
                         num_images: int,
                         num_val_images: int | None = None,
                         seed: int = 0,
                         size: int = 160,
                         objects: tuple[int, int] = (3, 8),
                         ratio_edges: Sequence[float] = RATIO_EDGES,
                         ratio_weights: Sequence[float] | None = None,
                         zero_share: float = 0.1,
                         tolerance: float = 0.005,
                         min_visible: float = 0.25,
                         workers: int | None = None,
                         overwrite: bool = False,
                         progress: bool = False) -> dict[str, Path]:
    """Make a data set of occluded shapes in COCO's layout.

    ``out`` gets train2017/, val2017/ and annotations/instances_{train,val}2017.json, whole or not at all. Masks, boxes and
    areas are those of the visible parts. An image's entry holds its `occlusion_ratio` (definition `covered`, see
    `mmtied.evaluation.occlusion`, of the boxes as written), an annotation's the share of its shape that is `visible`.

    Args:
        out: Folder to make. It may exist when it is empty.
        num_images: Number of training images, at least 1.
        num_val_images: Number of validation images, at least 1; by default a fifth of the training images, but at least 10.
        seed: Seed of everything random, at least 0. The same seed and options give the same bytes.
        size: Height and width of the images in pixels, at least 64.
        objects: Fewest and most objects in an image, from 2 to 100.
        ratio_edges: Edges of the buckets of occlusion ratios above 0, increasing, in [0, 1]. Above 0.9 few layouts exist.
        ratio_weights: Weight of each bucket; by default its width, so that r is uniform from the first edge to the last.
        zero_share: Share of the images with r = 0, in [0, 1].
        tolerance: How far an image's r may be from the one drawn for it. It never leaves the bucket.
        min_visible: Least share of a shape that shows, in [0, 1); 30 pixels show in any case.
        workers: Number of processes; by default one for each processor that this process may use.
        overwrite: Replace a data set that this function made before. Nothing else is ever replaced.
        progress: Show a progress line (needs rich, which mmengine brings).

    Returns:
        The annotation file of each split: ``{'train2017': Path, 'val2017': Path}``.

    Raises:
        ValueError: An argument is out of its range, or no layout with the ratio asked for was found.
        FileExistsError: `out` is not empty, and is not a data set made before or `overwrite` is not set.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = make_occluded_shapes(Path(folder) / 'shapes', num_images=3, num_val_images=1, workers=1)
        ...     [image['file_name'] for image in json.loads(paths['train2017'].read_text())['images']]
        ['000000000001.jpg', '000000000002.jpg', '000000000003.jpg']
    """
    if num_val_images is None:
        num_val_images = max(check_integer('num_images', num_images, least=1) // 5, 10)
    check_integer('num_images', num_images, least=1)
    check_integer('num_val_images', num_val_images, least=1)
    workers = check_integer('workers', _processors() if workers is None else workers, least=1)
    recipe = Recipe(seed, size, tuple(objects), min_visible, RatioTargets(ratio_edges, ratio_weights, zero_share, tolerance))
    out = Path(out)
    if overwrite:
        _check_made_before(out)

    with atomic_folder(out, overwrite=overwrite) as folder:
        (folder / 'annotations').mkdir()
        with _mapper(workers) as run:
            for split, num in zip(SPLITS, (num_images, num_val_images), strict=True):
                (folder / split).mkdir()
                records = run(partial(_write_image, recipe, folder, split), range(num))
                images, annotations = zip(*_shown(records, num, split, progress), strict=True)
                info = {'description': _DESCRIPTION, 'version': '1.0', 'split': split, 'recipe': asdict(recipe)}
                contents = annotation_file(list(images), list(annotations), info)
                annotation_path(folder, split).write_text(json.dumps(contents))
    return {split: annotation_path(out, split) for split in SPLITS}


def _write_image(recipe: Recipe, folder: Path, split: str, index: int) -> tuple[dict, list[dict]]:
    """Make an image, write it, and return its entry and its annotations."""
    pixels, ratio, annotations = recipe.make_image(split, index)
    name = f'{index + 1:012d}.jpg'
    encoded = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    (folder / split / name).write_bytes(encoded.tobytes())
    height, width = pixels.shape[:2]
    image = {'id': index + 1, 'file_name': name, 'height': height, 'width': width, 'license': 1, 'occlusion_ratio': ratio}
    return image, annotations


@contextmanager
def _mapper(workers: int) -> Iterator:
    """A `map` that keeps the order and shares the work among processes."""
    if workers == 1:
        yield map
        return
    # OpenCV's threads do not survive a fork, and one thread a process is what we want anyway.
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(0, )) as pool:
        try:
            yield partial(pool.map, chunksize=8)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _shown(records: Iterable, num: int, split: str, progress: bool) -> Iterable:
    """The records, with a progress line on stderr if asked for."""
    if not progress:
        return records
    from rich.console import Console
    from rich.progress import track
    return track(records, description=f'Drawing {split}', total=num, console=Console(stderr=True))


def _processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _check_made_before(out: Path) -> None:
    """Raise a FileExistsError unless the folder is missing, empty, or holds a data set made by `make_occluded_shapes`."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        made_here = json.loads(annotation_path(out, 'val2017').read_text())['info']['description'] == _DESCRIPTION
    except (OSError, ValueError, KeyError, TypeError):
        made_here = False
    if not made_here or {path.name for path in out.iterdir()} - {*SPLITS, 'annotations'}:
        raise FileExistsError(f'{out} holds other things than a data set of occluded shapes and will not be replaced; '
                              'name another folder')
