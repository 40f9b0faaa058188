"""Find and read the image files of a data set."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import GroundTruth
from .content import IMAGE_SUFFIXES
from .faults import one_line
from .image_ids import is_digits
from .openmmlab import unwrapped

if TYPE_CHECKING:
    from PIL import Image


#: Image formats that are opened; others, such as EPS, would start external programs.
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'PPM', 'JPEG2000')


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Return the sorted image files in a folder and its subfolders."""
    if not Path(folder).is_dir():
        raise ValueError(f'images: {folder} is not a folder')
    paths = sorted(Path(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names
                   if name.lower().endswith(IMAGE_SUFFIXES))
    if not paths:
        raise ValueError(f'images: neither {folder} nor its subfolders have images ({", ".join(IMAGE_SUFFIXES)})')
    return paths


def image_files(folder: Path) -> dict[str, Path]:
    """Return the image files below a folder by stem; none if the folder does not exist."""
    files = sorted(folder.rglob('*')) if folder.is_dir() else ()
    return {file.stem: file for file in files if file.suffix.lower() in IMAGE_SUFFIXES}


def image_paths(ground_truth: GroundTruth, folder: str | os.PathLike) -> list[Path]:
    """Return the path of every image in a folder, by the names in the annotation file."""
    check_folder(folder)
    check_names(ground_truth, range(len(ground_truth.image_ids)))
    paths = [image_file(folder, name) for name in ground_truth.file_names]
    missing = [path for path in paths if not is_file(path)]
    if missing:
        raise ValueError(f'{folder} lacks {len(missing)} of the {len(paths)} images of {ground_truth.source}, such as '
                         f'{one_line(os.path.relpath(missing[0], folder))}')
    return paths


def image_file(folder: str | os.PathLike, name: str) -> Path:
    r"""Return the path of an image in a folder, which need not exist; backslashes also separate folders.

    An absolute name, from the machine that made the annotations, is used if it lies in the folder (always for ``/``); otherwise
    its last parts are looked up in the folder.
    """
    parts = [part for part in name.replace('\\', '/').split('/') if part and not part.endswith(':')]
    path = _inside(folder, parts)
    if path is None:
        raise ValueError(f"{folder}: the image file name {one_line(name)!r} leads out of the folder; names inside it are "
                         'expected (absolute ones are found from /, as in --images /)')
    if is_file(path) or not Path(name).is_absolute():
        return path
    given = Path(os.path.normpath(name))
    if given.is_relative_to(Path(folder).absolute()) and is_file(given):
        return given
    ends = (_inside(folder, parts[first:]) for first in range(len(parts)))
    return next((end for end in ends if end is not None and is_file(end)), Path(folder, parts[-1] if parts else ''))


def _inside(folder: str | os.PathLike, parts: Sequence[str]) -> Path | None:
    """Join a path to a folder and resolve ``..``; return None if it leads out of the folder."""
    top = os.path.normpath(folder)
    path = Path(os.path.normpath(Path(top, *parts)))
    return path if path.is_relative_to(top) else None


def is_file(path: Path) -> bool:
    """Return whether a path is a file, also False for invalid names."""
    try:
        return path.is_file()
    except OSError:  # too long
        return False


def check_folder(folder: str | os.PathLike) -> None:
    """Raise a ValueError unless the folder exists."""
    if not Path(folder).is_dir():
        raise ValueError(f'{folder}: no such folder of images')


def check_names(ground_truth: GroundTruth, images: Iterable[int]) -> None:
    """Raise a ValueError unless the annotation file has file names for the images at some indices."""
    unnamed = [image for image in images if not ground_truth.file_names[image]]
    if unnamed:
        raise ValueError(f"{ground_truth.source}: image id {ground_truth.image_ids[unnamed[0]]} has no 'file_name', "
                         'which drawing needs')


def dataset_image_paths(dataset: Any, image_ids: Sequence[int]) -> list[str | None]:
    """Return the path of each image id in an mmdet dataset, possibly wrapped; None for unknown ids.

    Files outside the dataset's image folder, if it has one, count as unknown.
    """
    dataset = unwrapped(dataset)
    prefix, paths = getattr(dataset, 'data_prefix', None), {}
    folder = prefix.get('img') if isinstance(prefix, Mapping) else None
    for info in map(dataset.get_data_info, range(len(dataset))):
        if 'img_id' in info:
            path = info.get('img_path')
            is_local = path and folder and '://' not in str(path)
            leads_out = is_local and not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder))
            paths[str(info['img_id'])] = None if leads_out else path
    digits = {int(key): path for key, path in paths.items() if is_digits(key)}
    return [paths.get(str(image_id), digits.get(image_id)) for image_id in np.asarray(image_ids).tolist()]


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return height and width of an image file, from its header and with its EXIF orientation applied."""
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(0x0112, 1) > 4 else (height, width)


def with_sizes(images: Sequence[dict], folder: str | os.PathLike) -> list[dict]:
    """Add missing ``height`` and ``width`` to entries of images, from the files in a folder."""
    check_folder(folder)
    sized = []
    for image in images:
        if image.get('height') is None or image.get('width') is None:
            height, width = image_size(image_file(folder, str(image.get('file_name') or image['id'])))
            image = {**image, 'height': height, 'width': width}
        sized.append(image)
    return sized


def read_image(path: str | os.PathLike | None) -> 'Image.Image':
    """Read an image file as RGB with its EXIF orientation applied, as mmcv does."""
    if path is None:
        raise ValueError('the data set has no path for one of the images')
    with _opened(path) as image:
        from PIL import ImageOps

        return ImageOps.exif_transpose(image).convert('RGB')


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator['Image.Image']:
    from ...compat import require

    require('PIL', 'Reading images')
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path}: cannot be read as an image ({one_line(error)})') from None
