"""YOLO's text files: a line per object with its class and a box or polygon relative to the image size.

Annotations are ``class cx cy w h`` or ``class x1 y1 x2 y2 ...``; results have a score at the end.
"""

import re
import warnings
from pathlib import Path
from typing import Any

from ...atomic import real_path
from .coco_builder import MOST_CLASSES, CocoBuilder, polygon_box
from .content import as_numbers, files_with_suffix, first_line, numbered_lines
from .faults import Broken, one_line, shown
from .images import image_files, image_size

#: YAML files that name the classes.
_YAML = ('data.yaml', 'dataset.yaml', 'data.yml')
#: Keys read from the YAML files.
_YAML_KEYS = re.compile(r'''\b(names|kpt_shape)["']?\s*:''')
#: Folders of a data set's splits.
_SPLIT = re.compile('train|val|test')
#: Text files other than labels.
_NOT_LABELS = ('classes.txt', 'obj.names', 'train.txt', 'val.txt', 'test.txt', 'readme.txt')


def label_files(path: Path) -> list[Path]:
    """Return the label files below a folder or its ``labels``."""
    if not path.is_dir():
        return []
    folder = path / 'labels' if (path / 'labels').is_dir() else path
    return [file for file in files_with_suffix(folder, '.txt', below=True)
            if file.name.lower() not in _NOT_LABELS and 'README' not in file.name]


def is_yolo(path: Path) -> bool:
    """Return whether a folder has label files, whose first line has at least five numbers and starts with an integer."""
    line = first_line(label_files(path)).split()
    return len(line) >= 5 and line[0].isdecimal() and as_numbers(line) is not None


def read_yolo(path: Path, image_folder: Any, broken: Broken) -> tuple[dict, list[str]]:
    """Convert a folder of YOLO's annotations; return COCO's dict, and notes.

    Image ids are the stems. Sizes come from the image files in `image_folder`, in ``images`` beside ``labels``, or in the same
    folder. Names come from data.yaml or classes.txt. Invalid lines, and files without an image, are added to `broken`.
    """
    stems, (names, keypoints), builder = _label_file_of_stem(path), _read_names(path), CocoBuilder()
    pictures = _image_of_stem(path, image_folder)
    missing = [stem for stem in stems if stem not in pictures]
    if missing and (len(missing) == len(stems) or not broken.skip):
        raise ValueError(f'{path}: {len(missing)} of {len(stems)} label files have no image, such as {missing[0]}; boxes are '
                         'relative to the image size, so images are needed: --images FOLDER (image_folder=...)')
    for stem in missing:
        broken.add(f'{stems[stem]}: no image has the stem {stem!r}')
    for stem, picture in sorted(pictures.items()):
        size = height, width = image_size(picture)
        builder.add_image(stem, picture.name, height=height, width=width)
        for label, values in _objects(stems[stem], broken, keypoints) if stem in stems else ():
            if names and label not in names:
                broken.add(f'{stems[stem]}: class {label} is not among the {len(names)} named beside the labels '
                           f'({one_line(", ".join(names.values()))})')
                continue
            box, shape = _shape(values, size)
            builder.add_box(stem, label, box, **shape)
    parts = sorted({part for file in stems.values() for part in file.parent.relative_to(path).parts if _SPLIT.match(part)})
    if len(parts) > 1:
        warnings.warn(f'{path}: the labels of {", ".join(parts)} are all evaluated; give the folder of one to evaluate it alone',
                      stacklevel=2)
    if not names:
        builder.notes.append('there is no data.yaml or classes.txt, so categories are named by number')
    largest = max((0, *names, *(entry['category_id'] for entry in builder.annotations)))
    return builder.coco((names.get(number, str(number)) for number in range(largest + 1)), first_id=0)


def read_yolo_results(path: Path, sizes: dict[str, tuple[int, int]], broken: Broken) -> list[dict]:
    """Convert a folder of YOLO's text files to a results list; ``category_id`` is a name or None.

    `sizes` has the height and width of each stem's image. Invalid lines, and files without an image, are added to `broken`.
    """
    entries, (names, keypoints) = [], _read_names(path)
    for stem, file in _label_file_of_stem(path).items():
        if stem not in sizes:
            broken.add(f'{file}: no image has the stem {stem!r}')
            continue
        for label, values in _objects(file, broken, keypoints, scored=True):
            box, shape = _shape(values[:-1], sizes[stem])
            entries.append({'image_id': stem, 'category_id': names.get(label), 'label': label, 'score': values[-1], 'bbox': box,
                            **shape})
    return entries


def _read_names(path: Path) -> tuple[dict[int, str], int]:
    """Return the class names, and how many keypoint numbers follow each box, from files in a folder or its parents.

    Names are in data.yaml, classes.txt or obj.names, keypoints in data.yaml's ``kpt_shape`` such as [17, 3]. An unreadable
    data.yaml is an error only if no other file has the names, or if it has a ``kpt_shape``.
    """
    folders = (path, path / 'labels', *real_path(path).parents[:2])
    beside = [folder / name for folder in folders for name in (*_YAML, 'classes.txt', 'obj.names') if (folder / name).is_file()]
    data = next((file for file in beside if file.name in _YAML), None)
    names_file = next((file for file in beside if file.name not in _YAML), None)
    text = '' if data is None else data.read_text(encoding='utf-8', errors='replace')
    keys, stated = set(_YAML_KEYS.findall(text)), {}
    if keys:
        try:
            stated = _read_yaml(data, text)
        except ValueError:
            if names_file is None or 'kpt_shape' in keys:
                raise
    if names_file is not None and (beside[0] is names_file or not stated.get('names')):
        lines = names_file.read_text(encoding='utf-8').splitlines()
        stated['names'] = [line.strip() for line in lines if line.strip()]
    names, shape = stated.get('names') or {}, stated.get('kpt_shape')
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not all(type(number) is int and 0 <= number < MOST_CLASSES for number in names):
        raise ValueError(f'{data}: names must be a list or a dict by number, got {shown(names)}')
    has_shape = isinstance(shape, list) and len(shape) == 2 and all(type(side) is int and 0 <= side < 10_000 for side in shape)
    return ({number: name if isinstance(name, str) else shown(name) for number, name in names.items()},
            shape[0] * shape[1] if has_shape else 0)


def _read_yaml(file: Path, text: str) -> dict:
    try:
        import yaml
        value = yaml.safe_load(text)
    except ImportError:
        raise ValueError(f'{file}: reading its names or kpt_shape needs PyYAML: pip install pyyaml') from None
    except yaml.YAMLError as error:
        raise ValueError(f'{file}: not YAML ({one_line(error)})') from None
    return value if isinstance(value, dict) else {}


def _label_file_of_stem(path: Path) -> dict[str, Path]:
    """Return the label file of each stem; raise a ValueError if two splits have files of the same stem."""
    stems: dict[str, Path] = {}
    for file in label_files(path):
        other = stems.setdefault(file.stem, file)
        if other is not file:
            raise ValueError(f'{path}: {other.relative_to(path)} and {file.relative_to(path)} have the same stem, so images '
                             'cannot be told apart; give the folder of one split')
    return stems


def _objects(file: Path, broken: Broken, keypoints: int, scored: bool = False) -> list[tuple[int, list[float]]]:
    """Return the class and the numbers of each line, without those of keypoints; polygons have an even number."""
    found = []
    for where, line in numbered_lines(file):
        label, *values = as_numbers(line.split()) or [-1]
        if keypoints and len(values) >= 4 + keypoints:
            del values[4:4 + keypoints]
        fits = len(values) == 4 + scored or (len(values) > 6 and len(values) % 2 == scored)
        if fits and 0 <= label < MOST_CLASSES:
            found.append((int(label), values))
        else:
            expected = 'class cx cy w h' + (' score (save_conf=True writes it)' if scored else '')
            broken.add(f'{where}: expected {expected}, got {line[:80]!r}')
    return found


def _shape(values: list[float], size: tuple[int, int]) -> tuple[list[float], dict]:
    """Return the box in pixels for an image of a (height, width), and the segmentation if it is a polygon."""
    height, width = size
    if len(values) == 4:
        x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        return [x - w / 2, y - h / 2, w, h], {}
    points = [value * (width, height)[place % 2] for place, value in enumerate(values)]
    return polygon_box(points), {'segmentation': [points]}


def _image_of_stem(path: Path, image_folder: Any) -> dict[str, Path]:
    """Return the image file of each stem."""
    labels = path / 'labels' if (path / 'labels').is_dir() else path
    beside = [Path(*('images' if part == 'labels' else part for part in labels.parts)), path / 'images',
              labels.parent / 'images', labels]
    for folder in [Path(image_folder)] if image_folder else beside:
        found = image_files(folder)
        if found:
            return found
    raise ValueError(f'{path}: boxes are relative to the image size, so images are needed, but there is no folder of them; '
                     '--images FOLDER (image_folder=...)')
