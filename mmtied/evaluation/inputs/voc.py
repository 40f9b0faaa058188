"""Pascal VOC: annotations as a folder of XML files, results as ``comp4_det_<split>_<class>.txt`` files."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .coco_builder import CocoBuilder
from .content import as_numbers, files_with_suffix, numbered_lines
from .faults import Broken, as_flag, shown

#: Stem of a results file, with the class as `name`.
_RESULTS = re.compile(r'^(?:comp\d+_)?det_[^_]+_(?P<name>.+)$')


def xml_files(path: Path) -> list[Path]:
    """Return the XML files of a path: a folder of XML files, a VOC folder, or a list of stems in ImageSets/Main."""
    if path.is_dir():
        folder = path / 'Annotations' if (path / 'Annotations').is_dir() else path
        return files_with_suffix(folder, '.xml')
    folders = [parent / 'Annotations' for parent in path.parents[:4] if (parent / 'Annotations').is_dir()]
    if path.suffix != '.txt' or not folders:
        return []
    files = []
    for _, line in numbered_lines(path):
        file = folders[0] / f'{line.strip()}.xml'
        files.append(file if file.is_file() else folders[0] / f'{line.split()[0]}.xml')  # a class's list has a second column
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ValueError(f'{path}: {len(missing)} of {len(files)} images have no XML file, such as {missing[0]}')
    return files


def read_voc(path: Path, broken: Broken) -> tuple[dict, list[str]]:
    """Convert Pascal VOC; return COCO's dict, and notes.

    Like mmdet's XMLDataset, subtracts 1 from all coordinates and takes xmax - xmin as the width. Ids are the stems of the files.
    Difficult objects are ignored, by VOC's rules, and do not occlude. Invalid objects and files are added to `broken`.
    """
    builder = CocoBuilder()
    for file in xml_files(path):
        with broken.at(str(file)):
            root = _parsed(file)
            size = root.find('size')
            sides = {} if size is None else {side: _number(size, side) for side in ('width', 'height')}
            known = sides if all(sides.values()) else {}  # some tools write 0
            builder.add_image(file.stem, root.findtext('filename') or f'{file.stem}.jpg', **known)
            for found in root.findall('object'):
                with broken.at(str(file)):
                    _add_object(builder, file.stem, found)
    names = sorted({entry['category_id'] for entry in builder.annotations})
    for entry in builder.annotations:
        entry['category_id'] = names.index(entry['category_id']) + 1
    builder.note(builder.num_ignored, 'difficult objects are ignored, as are detections of them, and they occlude nothing')
    return builder.coco(names)


def _add_object(builder: CocoBuilder, image_id: str, found: Any) -> None:
    """Add an object with the name of its category."""
    box = found.find('bndbox')
    if box is None:
        raise ValueError("an object has no 'bndbox'")
    left, top, right, bottom = (float(int(_number(box, side))) - 1 for side in ('xmin', 'ymin', 'xmax', 'ymax'))
    difficult = as_flag(found.findtext('difficult'), '<difficult>')
    if right < left or bottom < top:
        raise ValueError('a box must have xmin <= xmax and ymin <= ymax, got '
                         f'{[number + 1 for number in (left, top, right, bottom)]}')
    others = {key: found.findtext(key) for key in ('occluded', 'truncated') if found.find(key) is not None}
    builder.add_box(image_id, (found.findtext('name') or '').strip(), [left, top, right - left, bottom - top], difficult,
                    difficult=int(difficult), **others)


def is_voc_results(path: Path) -> bool:
    """Return whether a path is a folder of VOC results or a file of it."""
    if path.is_dir():
        return any(_RESULTS.match(file.stem) for file in path.glob('*det_*.txt'))
    return path.suffix == '.txt' and _RESULTS.match(path.stem) is not None


def read_voc_results(path: Path, broken: Broken) -> list[dict]:
    """Convert VOC's results files to a results list with category names and zero-based xywh boxes.

    Lines without an image, a score and four numbers are added to `broken`.
    """
    entries = []
    for file in sorted(path.glob('*det_*.txt')) if path.is_dir() else [path]:
        name = _RESULTS.match(file.stem)['name']
        for where, line in numbered_lines(file):
            image_id, *words = line.rsplit(maxsplit=5)  # image names may have spaces
            numbers = as_numbers(words) or []
            if len(numbers) != 5:
                broken.add(f'{where}: expected an image, a score and xmin ymin xmax ymax, got {line[:80]!r}')
                continue
            score, left, top, right, bottom = numbers
            entries.append({'image_id': image_id, 'category_id': name, 'score': score,
                            'bbox': [left - 1, top - 1, right - left, bottom - top]})
    return entries


def _parsed(file: Path) -> Any:
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f'not complete XML ({error})') from None
    except ValueError as error:  # for example encoded in gb2312
        raise ValueError(f'cannot be read as XML ({error}); write it as UTF-8') from None
    if root.tag != 'annotation':
        raise ValueError(f'not a Pascal VOC annotation, as its root is <{root.tag}>')
    return root


def _number(element: Any, key: str) -> float:
    text = element.findtext(key)
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ValueError(f'<{element.tag}> must have a number in <{key}>, got {shown(text)}') from None
