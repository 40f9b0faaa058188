"""Open Images' tables of boxes: a CSV file with a line for each box, in shares of the image."""

from pathlib import Path
from typing import Any

from mmtied.tables import read_csv, read_rows

from .faults import Broken, as_flag

#: Columns that a table of boxes has.
_COLUMNS = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax')
#: Tables that name the labels, beside the table of boxes.
_DESCRIPTIONS = ('class-descriptions-boxable.csv', 'class-descriptions.csv', 'oidv7-class-descriptions-boxable.csv')
#: Columns that stay with each annotation.
_FLAGS = ('IsOccluded', 'IsTruncated', 'IsGroupOf', 'IsDepiction', 'IsInside')


def is_open_images(content: bytes) -> bool:
    """Return whether a file is a table of Open Images' boxes, by its first line."""
    columns = content[:1000].removeprefix(b'\xef\xbb\xbf').split(b'\n', 1)[0].strip().split(b',')
    return all(column.encode() in columns for column in _COLUMNS)


def read_open_images(content: bytes, path: Path, image_folder: Any, broken: Broken) -> tuple[dict, list[str]]:
    """Convert a table of boxes; return COCO's dict, and notes. Lines that are no boxes, or of no image, are added to `broken`.

    Groups (``IsGroupOf``) are ignored. Categories have the names of class-descriptions-boxable.csv, where it lies in the same
    folder. The hierarchy of classes and labels of whole images are not used, as AP by COCO's rules knows neither. Images
    without boxes count where a table of Open Images' lists them, such as validation-images-with-rotation.csv, in the same folder.

    Raises:
        ValueError: There is no folder of images.
    """
    from .images import image_entry, image_files

    if image_folder is None:
        raise ValueError(f'{path}: boxes are shares of the image, so its size is needed: --images FOLDER (image_folder=...)')
    pictures, names = image_files(Path(image_folder)), _class_names(path.parent)
    images, annotations, categories = {}, [], {}
    for number, row in enumerate(read_csv(path, content)[1], 2):
        with broken.at(f'{path}: line {number}'):
            stem = row['ImageID']
            if stem not in images:
                if stem not in pictures:
                    raise ValueError(f'{path}: line {number}: {image_folder} has no image {stem!r}')
                images[stem] = image_entry(pictures[stem])
            try:
                left, right, top, bottom = (float(row[side]) for side in ('XMin', 'XMax', 'YMin', 'YMax'))
            except (TypeError, ValueError):
                raise ValueError(f'{path}: line {number}: XMin, XMax, YMin and YMax must be numbers') from None
            width, height = images[stem]['width'], images[stem]['height']
            box = [left * width, top * height, (right - left) * width, (bottom - top) * height]
            flags = {flag: as_flag(row[flag], f'{path}: line {number}: {flag}') for flag in _FLAGS if row.get(flag) is not None}
            annotations.append({'id': len(annotations) + 1, 'image_id': stem, 'bbox': box, 'area': box[2] * box[3],
                                'category_id': categories.setdefault(row['LabelName'], len(categories) + 1),
                                'iscrowd': int(flags.get('IsGroupOf', False)), **{flag: int(flags[flag]) for flag in flags}})
    listed, num_boxed = _listed_images(path.parent), len(images)
    for stem in sorted(set(pictures) - set(images)):
        if stem in listed:
            images[stem] = image_entry(pictures[stem])
    without = len(pictures) - len(images)
    groups = sum(entry['iscrowd'] for entry in annotations)
    notes = ["the hierarchy of classes and labels of whole images are not used"]
    if len(images) > num_boxed:
        notes.append(f'{len(images) - num_boxed} images have no boxes, and are evaluated as they are listed beside the table')
    if without:
        notes.append(f'{without} images in {image_folder} have no boxes and are not evaluated; a list of images beside the '
                     'table, such as validation-images-with-rotation.csv, adds them')
    if groups:
        notes.append(f'{groups} boxes are ignored, as they stand for groups (IsGroupOf)')
    return {'images': list(images.values()), 'annotations': annotations,
            'categories': [{'id': number, 'name': names.get(label, label)} for label, number in categories.items()]}, notes


def _listed_images(folder: Path) -> set[str]:
    """Return the images that Open Images' lists of images in a folder name; empty without one."""
    found = set()
    for file in sorted(folder.glob('*image*.csv')):
        header, rows = read_csv(file)
        if {'ImageID', 'Subset'} <= set(header):
            found |= {row['ImageID'] for row in rows}
    return found


def _class_names(folder: Path) -> dict[str, str]:
    """Return the name of each label, empty where no table names them."""
    file = next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)
    if file is None:
        return {}
    return {row[0]: row[1] for row in read_rows(file) if len(row) > 1}
