"""Pascal VOC: a folder of XML files as annotations, and ``comp4_det_<split>_<class>.txt`` files as results."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .content import files_with_suffix
from .faults import Broken, as_flag, shown

#: The name of a results file: what stands before the class.
_RESULTS = re.compile(r'^(?:comp\d+_)?det_[^_]+_(?P<name>.+)$')


def xml_files(path: Path) -> list[Path]:
    """Return the XML files that a path stands for: a folder of them, a VOC folder, or a list of stems in ImageSets/Main.

    Raises:
        ValueError: A stem of the list has no XML file.
    """
    if path.is_dir():
        folder = path / 'Annotations' if (path / 'Annotations').is_dir() else path
        return files_with_suffix(folder, '.xml')
    folders = [parent / 'Annotations' for parent in path.parents[:4] if (parent / 'Annotations').is_dir()]
    if path.suffix != '.txt' or not folders:
        return []
    lines = [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip()]
    files = [folders[0] / f'{line}.xml' for line in lines]
    files = [file if file.is_file() else folders[0] / f'{line.split()[0]}.xml'  # lists of one class have a second column
             for file, line in zip(files, lines, strict=True)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise ValueError(f'{path}: {len(missing)} of {len(files)} images have no XML file, such as {missing[0]}')
    return files


def read_voc(path: Path, broken: Broken) -> tuple[dict, list[str]]:
    """Convert Pascal VOC; return COCO's dict, and notes.

    As in mmdet's XMLDataset, 1 is subtracted from all coordinates, and the width is xmax - xmin. Ids are the stems of the
    files. Difficult objects are ignored and do not occlude, as by VOC's rules they count neither way.

    Objects and files that are no VOC annotations are added to `broken`.
    """
    images, annotations, difficult, names = [], [], 0, set()
    for file in xml_files(path):
        with broken.at(str(file)):
            root = _parsed(file)
            image = {'id': file.stem, 'file_name': root.findtext('filename') or f'{file.stem}.jpg'}
            if root.find('size') is not None:
                image |= {side: _number(root.find('size'), side, file) for side in ('width', 'height')}
            if not image.get('width') or not image.get('height'):  # some tools write 0
                image = {key: value for key, value in image.items() if key not in ('width', 'height')}
            images.append(image)
            for found in root.findall('object'):
                with broken.at(str(file)):
                    entry = _object(found, file)
                    difficult += entry['difficult']
                    names.add(entry['category_id'])
                    annotations.append({'id': len(annotations) + 1, 'image_id': file.stem, **entry})
    numbers = {name: number for number, name in enumerate(sorted(names), 1)}
    for entry in annotations:
        entry['category_id'] = numbers[entry['category_id']]
    notes = [f'{difficult} difficult objects are ignored: detections of them count neither way, and they occlude nothing'
             ] if difficult else []
    return {'images': images, 'annotations': annotations,
            'categories': [{'id': number, 'name': name} for name, number in numbers.items()]}, notes


def _object(found: Any, file: Path) -> dict:
    """Return an object as an annotation with the name of its category."""
    box = found.find('bndbox')
    if box is None:
        raise ValueError(f"{file}: an object has no 'bndbox'")
    left, top, right, bottom = (float(int(_number(box, side, file))) - 1 for side in ('xmin', 'ymin', 'xmax', 'ymax'))
    difficult = int(as_flag(found.findtext('difficult'), f'{file}: <difficult>'))
    if right < left or bottom < top:
        raise ValueError(f'{file}: a box must have xmin <= xmax and ymin <= ymax, got '
                         f'{[number + 1 for number in (left, top, right, bottom)]}')
    return {'category_id': (found.findtext('name') or '').strip(), 'bbox': [left, top, right - left, bottom - top],
            'area': (right - left) * (bottom - top), 'iscrowd': difficult, 'difficult': difficult,
            **{key: found.findtext(key) for key in ('occluded', 'truncated') if found.find(key) is not None}}


def is_voc_results(path: Path) -> bool:
    """Return whether a path is a folder of VOC's results, or one of its files."""
    if path.is_dir():
        return any(_RESULTS.match(file.stem) for file in path.glob('*det_*.txt'))
    return path.suffix == '.txt' and _RESULTS.match(path.stem) is not None


def read_voc_results(path: Path, broken: Broken) -> list[dict]:
    """Return the detections of VOC's results files as a results list with names of categories; boxes xywh from 0.

    Lines that do not hold an image, a score and four numbers are added to `broken`.
    """
    entries = []
    for file in sorted(path.glob('*det_*.txt')) if path.is_dir() else [path]:
        name = _RESULTS.match(file.stem)['name']
        for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
            parts = line.rsplit(maxsplit=5)  # names of images may have spaces
            try:
                image_id, (score, left, top, right, bottom) = parts[0], map(float, parts[1:])
            except (ValueError, IndexError):
                if not parts:
                    continue
                broken.add(f'{file}: line {number}: expected an image, a score and xmin ymin xmax ymax, got {line[:80]!r}')
                continue
            entries.append({'image_id': image_id, 'category_id': name, 'score': score,
                            'bbox': [left - 1, top - 1, right - left, bottom - top]})
    return entries


def _parsed(file: Path) -> Any:
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f'{file}: not complete XML ({error})') from None
    except ValueError as error:  # an encoding such as gb2312
        raise ValueError(f'{file}: cannot be read as XML ({error}); write it as UTF-8') from None
    if root.tag != 'annotation':
        raise ValueError(f'{file}: not an annotation of Pascal VOC, its root is <{root.tag}>')
    return root


def _number(element: Any, key: str, file: Path) -> float:
    text = element.findtext(key)
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ValueError(f'{file}: <{element.tag}> must have a number in <{key}>, got {shown(text)}') from None
