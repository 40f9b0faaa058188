"""VisDrone's text files, one per image: a line per object with box, score, category, truncation and occlusion."""

from pathlib import Path
from typing import Any

from .coco_builder import CocoBuilder
from .content import as_numbers, files_with_suffix, first_line, numbered_lines
from .faults import Broken
from .images import image_files, image_size

#: Categories by number. The first and the last are regions in which detections of every category are ignored.
NAMES = ('ignored regions', 'pedestrian', 'people', 'bicycle', 'car', 'van', 'truck', 'tricycle', 'awning-tricycle', 'bus',
         'motor', 'others')
_FIELDS = 8


def text_files(path: Path) -> list[Path]:
    """Return the text files in a folder or its ``annotations``."""
    folder = path / 'annotations' if (path / 'annotations').is_dir() else path
    return files_with_suffix(folder, '.txt')


def is_visdrone(path: Path) -> bool:
    """Return whether a folder has VisDrone's files, whose first line has eight comma-separated numbers."""
    return _numbers(first_line(text_files(path))) is not None


def read_visdrone(path: Path, image_folder: Any, broken: Broken) -> tuple[dict, list[str]]:
    """Convert a folder of VisDrone's annotations; return COCO's dict, and notes.

    Image ids are the stems. Sizes come from the image files in `image_folder`, or in ``images`` beside ``annotations``. Ignored
    regions and others (categories 0 and 11) are ignored for every category, objects of score 0 for their own. Annotations keep
    ``truncation`` and ``occlusion``. Invalid lines, and files without an image, are added to `broken`.
    """
    files, builder = text_files(path), CocoBuilder()
    folder = Path(image_folder) if image_folder else files[0].parent.parent / 'images'
    pictures = image_files(folder)
    missing = [file for file in files if file.stem not in pictures]
    if len(missing) == len(files) or (missing and not broken.skip):
        raise ValueError(f'{path}: {len(missing)} of {len(files)} text files have no image in {folder}, such as '
                         f'{missing[0].name}; images are needed for their sizes: --images FOLDER (image_folder=...)')
    for file in files:
        if file.stem not in pictures:
            broken.add(f'{file}: no image in {folder}')
            continue
        height, width = image_size(pictures[file.stem])
        builder.add_image(file.stem, pictures[file.stem].name, height=height, width=width)
        for *box, score, category, truncation, occlusion in _objects(file, broken):
            is_region = category in (0, len(NAMES) - 1)
            builder.add_box(file.stem, None if is_region else int(category), box, is_region or not score,
                            truncation=int(truncation), occlusion=int(occlusion))
    builder.note(builder.num_ignored, 'boxes are ignored (ignored regions, others, or score 0)')
    return builder.coco(NAMES[1:-1])


def read_visdrone_results(path: Path, broken: Broken) -> list[dict]:
    """Convert VisDrone's text files to a results list; invalid lines are added to `broken`."""
    return [{'image_id': file.stem, 'category_id': NAMES[int(category)], 'bbox': box, 'score': score}
            for file in text_files(path) for *box, score, category, _, _ in _objects(file, broken)]


def _objects(file: Path, broken: Broken) -> list[list[float]]:
    found = []
    for where, line in numbered_lines(file):
        numbers = _numbers(line)
        if numbers is None or numbers[5] not in range(len(NAMES)):
            broken.add(f'{where}: expected left,top,width,height,score,category,truncation,occlusion with a category from 0 to '
                       f'{len(NAMES) - 1}, got {line[:80]!r}')
        else:
            found.append(numbers)
    return found


def _numbers(line: str) -> list[float] | None:
    numbers = as_numbers(line.strip().rstrip(',').split(','))
    return numbers if numbers and len(numbers) == _FIELDS else None
