"""Open Images' tables of boxes: a CSV file with a line for each box, in shares of the image."""

from pathlib import Path
from typing import Any

from mmtied.tables import read_csv, read_rows

from .coco_builder import CocoBuilder
from .faults import Broken, as_flag
from .images import image_files, image_size

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
    """
    if image_folder is None:
        raise ValueError(f'{path}: boxes are shares of the image, so its size is needed: --images FOLDER (image_folder=...)')
    pictures, categories, builder, sizes = image_files(Path(image_folder)), {}, CocoBuilder(), {}

    def add_image(stem: str) -> None:
        height, width = sizes[stem] = image_size(pictures[stem])
        builder.add_image(stem, pictures[stem].name, height=height, width=width)

    for number, row in enumerate(read_csv(path, content)[1], 2):
        with broken.at(f'{path}: line {number}'):
            stem = row['ImageID']
            if stem not in pictures:
                raise ValueError(f'{image_folder} has no image {stem!r}')
            if stem not in sizes:
                add_image(stem)
            try:
                left, right, top, bottom = (float(row[side]) for side in ('XMin', 'XMax', 'YMin', 'YMax'))
            except (TypeError, ValueError):
                raise ValueError('XMin, XMax, YMin and YMax must be numbers') from None
            height, width = sizes[stem]
            flags = {flag: int(as_flag(row[flag], flag)) for flag in _FLAGS if row.get(flag) is not None}
            builder.add_box(stem, categories.setdefault(row['LabelName'], len(categories) + 1),
                            [left * width, top * height, (right - left) * width, (bottom - top) * height],
                            flags.get('IsGroupOf', 0), **flags)
    builder.notes.append('the hierarchy of classes and labels of whole images are not used')
    empty = sorted(set(pictures) - set(sizes))
    listed = _listed_images(path.parent).intersection(empty)
    for stem in sorted(listed):
        add_image(stem)
    builder.note(len(listed), 'images have no boxes, and are evaluated as they are listed beside the table')
    builder.note(len(empty) - len(listed), f'images in {image_folder} have no boxes and are not evaluated; a list of images '
                                           'beside the table, such as validation-images-with-rotation.csv, adds them')
    builder.note(builder.num_ignored, 'boxes are ignored, as they stand for groups (IsGroupOf)')
    names = _class_names(path.parent)
    return builder.coco(names.get(label, label) for label in categories)


def _listed_images(folder: Path) -> set[str]:
    """Return the images that Open Images' lists of images in a folder name; empty without one."""
    found = set()
    for file in sorted(folder.glob('*image*.csv')):  # large: one at a time
        header, rows = read_csv(file)
        if {'ImageID', 'Subset'} <= set(header):
            found |= {row['ImageID'] for row in rows}
    return found


def _class_names(folder: Path) -> dict[str, str]:
    """Return the name of each label, empty where no table names them."""
    file = next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)
    return {row[0]: row[1] for row in read_rows(file) if len(row) > 1} if file else {}
