"""Open Images' tables of boxes: a CSV file with a line per box, in fractions of the image size."""

from pathlib import Path
from typing import Any

from mmtied.tables import read_csv, read_rows

from .coco_builder import CocoBuilder
from .faults import Broken, as_flag
from .images import image_files, image_size

#: Columns of a table of boxes.
_COLUMNS = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax')
#: Tables with the names of labels, in the same folder as the table of boxes.
_DESCRIPTIONS = ('class-descriptions-boxable.csv', 'class-descriptions.csv', 'oidv7-class-descriptions-boxable.csv')
#: Columns that annotations keep.
_FLAGS = ('IsOccluded', 'IsTruncated', 'IsGroupOf', 'IsDepiction', 'IsInside')


def is_open_images(content: bytes) -> bool:
    """Return whether a file is Open Images' table of boxes, judged by its first line."""
    columns = content[:1000].removeprefix(b'\xef\xbb\xbf').split(b'\n', 1)[0].strip().split(b',')
    return all(column.encode() in columns for column in _COLUMNS)


def read_open_images(content: bytes, path: Path, image_folder: Any, broken: Broken) -> tuple[dict, list[str]]:
    """Convert a table of boxes; return COCO's dict, and notes. Invalid lines, and those without an image, go to `broken`.

    Groups (``IsGroupOf``) are ignored. Category names come from class-descriptions-boxable.csv in the same folder, if present.
    COCO's AP uses neither the class hierarchy nor image-level labels. Images without boxes count if an Open Images list in the
    same folder, such as validation-images-with-rotation.csv, names them.
    """
    if image_folder is None:
        raise ValueError(f'{path}: boxes are relative to the image size, so images are needed: --images FOLDER '
                         '(image_folder=...)')
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
    builder.notes.append('the class hierarchy and image-level labels are not used')
    empty = sorted(set(pictures) - set(sizes))
    listed = _listed_images(path.parent).intersection(empty)
    for stem in sorted(listed):
        add_image(stem)
    builder.note(len(listed), 'images without boxes are evaluated because the image list names them')
    builder.note(len(empty) - len(listed), f'images in {image_folder} have no boxes and are not evaluated; an image list beside '
                                           'the table, such as validation-images-with-rotation.csv, adds them')
    builder.note(builder.num_ignored, 'group boxes (IsGroupOf) are ignored')
    names = _class_names(path.parent)
    return builder.coco(names.get(label, label) for label in categories)


def _listed_images(folder: Path) -> set[str]:
    """Return the images named by Open Images' image lists in a folder."""
    found = set()
    for file in sorted(folder.glob('*image*.csv')):  # large, so one at a time
        header, rows = read_csv(file)
        if {'ImageID', 'Subset'} <= set(header):
            found |= {row['ImageID'] for row in rows}
    return found


def _class_names(folder: Path) -> dict[str, str]:
    """Return the name of each label; empty without a table of names."""
    file = next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)
    return {row[0]: row[1] for row in read_rows(file) if len(row) > 1} if file else {}
