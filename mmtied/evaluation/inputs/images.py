"""Find the image files of a data set, and read one to draw on."""

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


#: Formats of images that are opened; others, such as EPS, start other programs.
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'PPM', 'JPEG2000')


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Return the image files in a folder and in those below it, sorted."""
    if not Path(folder).is_dir():
        raise ValueError(f'images: {folder} is not a folder')
    paths = sorted(Path(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names
                   if name.lower().endswith(IMAGE_SUFFIXES))
    if not paths:
        raise ValueError(f'images: {folder} has no images ({", ".join(IMAGE_SUFFIXES)}), nor has any folder in it')
    return paths


def image_files(folder: Path) -> dict[str, Path]:
    """Return the image files below a folder, by stem; none where there is no folder."""
    files = sorted(folder.rglob('*')) if folder.is_dir() else ()
    return {file.stem: file for file in files if file.suffix.lower() in IMAGE_SUFFIXES}


def image_paths(ground_truth: GroundTruth, folder: str | os.PathLike) -> list[Path]:
    """Return the file of every image in a folder, by the annotation file's names."""
    check_folder(folder)
    check_names(ground_truth, range(len(ground_truth.image_ids)))
    paths = [image_file(folder, name) for name in ground_truth.file_names]
    missing = [path for path in paths if not is_file(path)]
    if missing:
        raise ValueError(f'{folder} lacks {len(missing)} of the {len(paths)} images of {ground_truth.source}, such as '
                         f'{one_line(os.path.relpath(missing[0], folder))}')
    return paths


def image_file(folder: str | os.PathLike, name: str) -> Path:
    r"""Return the path of an image in a folder, which may be missing; backslashes separate folders too.

    An absolute name, of the machine where the annotations were made, counts where it lies in the folder (all do in ``/``);
    otherwise the folder is searched for the end of the name.
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
    """Return a path below a folder, without ``..``, or None where it is not below."""
    top = os.path.normpath(folder)
    path = Path(os.path.normpath(Path(top, *parts)))
    return path if path.is_relative_to(top) else None


def is_file(path: Path) -> bool:
    """Return whether a path is a file; False also for names that no file can have."""
    try:
        return path.is_file()
    except OSError:  # too long
        return False


def check_folder(folder: str | os.PathLike) -> None:
    """Raise a ValueError unless the folder exists."""
    if not Path(folder).is_dir():
        raise ValueError(f'{folder}: no such folder of images')


def check_names(ground_truth: GroundTruth, images: Iterable[int]) -> None:
    """Raise a ValueError unless the annotation file names the files of the images at some indices."""
    unnamed = [image for image in images if not ground_truth.file_names[image]]
    if unnamed:
        raise ValueError(f"{ground_truth.source}: image id {ground_truth.image_ids[unnamed[0]]} has no 'file_name', "
                         'which drawing needs')


def dataset_image_paths(dataset: Any, image_ids: Sequence[int]) -> list[str | None]:
    """Return the file of every image id as an mmdet dataset, perhaps wrapped, names it; None for those that it does not hold.

    Files outside its folder of images, where it has one, count as those that it does not hold.
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
    """Return height and width of an image file as it is shown, from its header; a ValueError names one that cannot be read."""
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(0x0112, 1) > 4 else (height, width)


def with_sizes(images: Sequence[dict], folder: str | os.PathLike) -> list[dict]:
    """Return entries of images with ``height`` and ``width`` from the files in a folder, where they lack them."""
    check_folder(folder)
    sized = []
    for image in images:
        if image.get('height') is None or image.get('width') is None:
            height, width = image_size(image_file(folder, str(image.get('file_name') or image['id'])))
            image = {**image, 'height': height, 'width': width}
        sized.append(image)
    return sized


def read_image(path: str | os.PathLike | None) -> 'Image.Image':
    """Read an image file as RGB, turned as its EXIF orientation says, which is how mmcv loads it for the model."""
    if path is None:
        raise ValueError('the data set does not say where one of the images is')
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
