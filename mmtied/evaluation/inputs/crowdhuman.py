"""CrowdHuman's .odgt: a JSON object per image, with full, visible and head boxes of persons."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .coco_builder import CocoBuilder
from .faults import Broken, as_flag, one_line


def is_odgt(lines: Sequence[Any], boxes: str = 'gtboxes') -> bool:
    """Return whether the first JSON line is an image in CrowdHuman's layout; results have ``dtboxes`` instead of `boxes`."""
    return bool(lines) and isinstance(lines[0], Mapping) and {'ID', boxes} <= set(lines[0])


def read_odgt_results(lines: Sequence[Any]) -> list[Any]:
    """Convert the ``dtboxes`` of each image, with ``box`` as [x, y, width, height] and ``score``, to a results list.

    Lines and boxes of another layout are kept unchanged, for the later check of entries to report.
    """
    found = []
    for line in lines:
        if is_odgt([line], 'dtboxes') and isinstance(line['dtboxes'], list):
            found += [{'image_id': line['ID'], 'category_id': 'person', 'bbox': box.get('box'), 'score': box.get('score')}
                      if isinstance(box, Mapping) else box for box in line['dtboxes']]
        else:
            found.append(line)
    return found


def read_odgt(lines: list[Any], image_folder: Any, broken: Broken) -> tuple[dict, list[str]]:
    """Convert .odgt; return COCO's dict, and notes.

    Boxes are the full ones, ``fbox``; annotations keep ``vbox``, ``hbox``, ``fbox``, ``tag`` and ``ignore``. Boxes with
    ``ignore`` or a tag other than person (``mask``: crowds, reflections) are ignore regions.
    """
    builder = CocoBuilder()
    stated = all('height' in line and 'width' in line for line in lines if isinstance(line, dict))
    for number, line in enumerate(lines, 1):
        where = f'{broken.source}: line {number}'
        if not is_odgt([line]) or not isinstance(line['gtboxes'], list):
            broken.add(f"{where}: expected an object with 'ID' and 'gtboxes', got {one_line(line, 80)}")
            continue
        right, bottom = 1., 1.
        for box in line['gtboxes']:
            with broken.at(f"{where}: image {line['ID']}"):
                full = box.get('fbox') if isinstance(box, dict) else None
                if not isinstance(full, list) or len(full) != 4:
                    raise ValueError(f"expected 'fbox': [x, y, width, height], got {one_line(box, 80)}")
                extra = box.get('extra') or {}
                is_region = as_flag(extra.get('ignore'), "'ignore'") | (box.get('tag', 'person') != 'person')
                right, bottom = max(right, full[0] + full[2]), max(bottom, full[1] + full[3])
                builder.add_box(line['ID'], 1, full, is_region, ignore=int(is_region),
                                **{key: box[key] for key in ('fbox', 'vbox', 'hbox', 'tag') if key in box},
                                **{key: extra[key] for key in ('occ', 'unsure', 'box_id') if key in extra})
        image = builder.add_image(line['ID'], f'{line["ID"]}.jpg')
        if stated:
            image |= {'height': line['height'], 'width': line['width']}
        elif image_folder is None:
            image |= {'height': math.ceil(bottom), 'width': math.ceil(right)}
    builder.note(builder.num_ignored, 'boxes are ignored (extra.ignore, or a tag other than person)')
    if not stated and image_folder is None:
        builder.notes.append('the file has no image sizes, so r includes parts of boxes beyond the right and lower border; '
                             '--images FOLDER (image_folder=...) takes sizes from the image files')
    return builder.coco(['person'])
