"""VisDrone's text files: a line for each object with box, score, category, truncation and occlusion, for each image a file."""

from pathlib import Path
from typing import Any

from .content import files_with_suffix, first_line
from .faults import Broken

#: Categories by number. The first and the last are regions where detections of every category count neither way.
NAMES = ('ignored regions', 'pedestrian', 'people', 'bicycle', 'car', 'van', 'truck', 'tricycle', 'awning-tricycle', 'bus',
         'motor', 'others')
_FIELDS = 8


def text_files(path: Path) -> list[Path]:
    """Return the text files of a folder, or of ``annotations`` in it."""
    if not path.is_dir():
        return []
    folder = path / 'annotations' if (path / 'annotations').is_dir() else path
    return files_with_suffix(folder, '.txt')


def is_visdrone(path: Path) -> bool:
    """Return whether a folder holds VisDrone's files: the first line of one has eight numbers between commas."""
    return _numbers(first_line(text_files(path))) is not None


def read_visdrone(path: Path, image_folder: Any, broken: Broken) -> tuple[dict, list[str]]:
    """Convert a folder of VisDrone's annotations; return COCO's dict, and notes.

    Image ids are the stems. Sizes come from the image files: in `image_folder`, or ``images`` beside ``annotations``. Ignored
    regions and others (categories 0 and 11) are ignored for every category, objects of score 0 for their own.
    ``truncation`` and ``occlusion`` stay with each annotation. Lines that are no objects, and files without an image, are added
    to `broken`.

    Raises:
        ValueError: No file has an image.
    """
    from .images import image_entry, image_files

    files = text_files(path)
    folder = Path(image_folder) if image_folder else files[0].parent.parent / 'images'
    pictures = image_files(folder)
    missing = [file for file in files if file.stem not in pictures]
    if len(missing) == len(files) or (missing and not broken.skip):
        raise ValueError(f'{path}: {len(missing)} of {len(files)} text files have no image in {folder}, such as '
                         f'{missing[0].name}; sizes of images come from these: --images FOLDER (image_folder=...)')
    images, annotations, ignored = [], [], 0
    for file in files:
        if file.stem not in pictures:
            broken.add(f'{file}: no image in {folder}')
            continue
        images.append(image_entry(pictures[file.stem]))
        for *box, score, category, truncation, occlusion in _lines(file, broken):
            is_region = NAMES[int(category)] in (NAMES[0], NAMES[-1])
            ignored += is_region or not score
            annotations.append({'id': len(annotations) + 1, 'image_id': file.stem, 'bbox': box, 'area': box[2] * box[3],
                                'category_id': None if is_region else int(category), 'iscrowd': int(is_region or not score),
                                'truncation': int(truncation), 'occlusion': int(occlusion)})
    notes = [f'{ignored} boxes are ignored (ignored regions, others, or score 0)'] if ignored else []
    return {'images': images, 'annotations': annotations,
            'categories': [{'id': number, 'name': name} for number, name in enumerate(NAMES[1:-1], 1)]}, notes


def read_visdrone_results(path: Path, broken: Broken) -> list[dict]:
    """Return the detections of a folder of VisDrone's text files as a results list; lines that are none go to `broken`."""
    return [{'image_id': file.stem, 'category_id': NAMES[int(category)], 'bbox': box, 'score': score}
            for file in text_files(path) for *box, score, category, _, _ in _lines(file, broken)]


def _lines(file: Path, broken: Broken) -> list[list[float]]:
    found = []
    for number, line in enumerate(file.read_text(encoding='utf-8-sig').splitlines(), 1):
        if line.strip():
            numbers = _numbers(line)
            if numbers is None or numbers[5] not in range(len(NAMES)):
                broken.add(f'{file}: line {number}: expected left,top,width,height,score,category,truncation,occlusion with a '
                           f'category from 0 to {len(NAMES) - 1}, got {line[:80]!r}')
            else:
                found.append(numbers)
    return found


def _numbers(line: str) -> list[float] | None:
    try:
        numbers = [float(part) for part in line.strip().rstrip(',').split(',')]
    except ValueError:
        return None
    return numbers if len(numbers) == _FIELDS else None
