"""Make a data set of textured shapes that occlude each other to a chosen degree, with COCO's layout on disk.

An image depends only on the seed, the split and its index. So the work can be split among any number of processes, and a larger
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

from .recipe import SPLITS, RatioTargets, Recipe, check_integer
from .shapes import CATEGORIES

#: Default bucket edges for r above 0.
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

    ``out`` gets train2017/, val2017/ and annotations/instances_{train,val}2017.json, all or nothing. Masks, boxes and areas are
    those of the visible parts. Each image has its `occlusion_ratio` (definition `covered` of `mmtied.evaluation.occlusion`, of
    the boxes in the file), each annotation the `visible` share of its shape.

    Args:
        out: Folder to create. It may exist if it is empty.
        num_images: Number of training images, at least 1.
        num_val_images: Number of validation images, at least 1; by default a fifth of the training images, but at least 10.
        seed: Random seed, at least 0. The same seed and options give the same bytes.
        size: Height and width of the images in pixels, at least 64.
        objects: Smallest and largest number of objects in an image, from 2 to 100.
        ratio_edges: Increasing bucket edges in [0, 1] for occlusion ratios above 0. Few layouts exist above 0.9.
        ratio_weights: Weight of each bucket; by default its width, so that r is uniform from the first edge to the last.
        zero_share: Share of images with r = 0, in [0, 1].
        tolerance: Largest difference of an image's r from its target. It never leaves the target's bucket.
        min_visible: Smallest visible share of a shape, in [0, 1); at least 30 pixels are visible in any case.
        workers: Number of processes; by default the number of processors that this process may use.
        overwrite: Replace a data set that this function made. Nothing else is ever replaced.
        progress: Show a progress bar (needs rich, which mmengine installs).

    Returns:
        The annotation file of each split: ``{'train2017': Path, 'val2017': Path}``.

    Raises:
        ValueError: An argument is out of range, or no layout with a wanted ratio was found.
        FileExistsError: `out` is not empty, and is not a data set made by this function or `overwrite` is not set.

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
                contents = json.dumps(_coco_contents(list(images), list(annotations), info))
                _annotation_path(folder, split).write_text(contents)
    return {split: _annotation_path(out, split) for split in SPLITS}


def _write_image(recipe: Recipe, folder: Path, split: str, index: int) -> tuple[dict, list[dict]]:
    """Make and write an image, and return its entry and its annotations."""
    pixels, ratio, annotations = recipe.make_image(split, index)
    name = f'{index + 1:012d}.jpg'
    encoded = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    (folder / split / name).write_bytes(encoded.tobytes())
    height, width = pixels.shape[:2]
    image = {'id': index + 1, 'file_name': name, 'height': height, 'width': width, 'license': 1, 'occlusion_ratio': ratio}
    return image, annotations


def _coco_contents(images: list[dict], annotations: list[list[dict]], info: dict) -> dict:
    """Return the contents of a COCO annotation file, with annotation ids from 1: COCOeval takes 0 for "no match"."""
    with_image = [{'image_id': image['id'], **annotation} for image, of_image in zip(images, annotations, strict=True)
                  for annotation in of_image]
    return {
        'info': info,
        'licenses': [{'id': 1, 'name': 'CC0 1.0', 'url': 'https://creativecommons.org/publicdomain/zero/1.0/'}],
        'categories': [{'id': number, 'name': name, 'supercategory': 'shape'} for number, name in enumerate(CATEGORIES, 1)],
        'images': images,
        'annotations': [{'id': number, **annotation} for number, annotation in enumerate(with_image, 1)],
    }


def _annotation_path(folder: Path, split: str) -> Path:
    return folder / 'annotations' / f'instances_{split}.json'


@contextmanager
def _mapper(workers: int) -> Iterator:
    """Yield a `map` that keeps the order and splits the work among processes."""
    if workers == 1:
        yield map
        return
    # OpenCV's threads do not survive a fork; one thread for each process is right anyway.
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(0, )) as pool:
        try:
            yield partial(pool.map, chunksize=8)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _shown(records: Iterable, num: int, split: str, progress: bool) -> Iterable:
    """Return the records, with a progress bar on stderr if wanted."""
    if not progress:
        return records
    from rich.console import Console
    from rich.progress import track
    return track(records, description=f'Drawing {split}', total=num, console=Console(stderr=True))


def _processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _check_made_before(out: Path) -> None:
    """Raise a FileExistsError unless the folder is missing, empty, or holds a data set of `make_occluded_shapes`."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        made_here = json.loads(_annotation_path(out, 'val2017').read_text())['info']['description'] == _DESCRIPTION
    except (OSError, ValueError, KeyError, TypeError):
        made_here = False
    if not made_here or {path.name for path in out.iterdir()} - {*SPLITS, 'annotations'}:
        raise FileExistsError(f'{out} does not hold only a data set of occluded shapes and will not be replaced; name another '
                              'folder')
