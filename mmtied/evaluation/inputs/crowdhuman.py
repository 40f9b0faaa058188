"""CrowdHuman's .odgt: a JSON object for each image, with full, visible and head boxes of persons."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .faults import Broken, as_flag, one_line


def is_odgt(lines: list[Any]) -> bool:
    """Return whether the first JSON line is an image of CrowdHuman, or of a set in its layout."""
    return bool(lines) and isinstance(lines[0], dict) and 'ID' in lines[0] and 'gtboxes' in lines[0]


def is_odgt_results(lines: Sequence[Any]) -> bool:
    """Return whether the first JSON line holds the detections of an image as CrowdHuman's tools write them."""
    return bool(lines) and isinstance(lines[0], Mapping) and 'ID' in lines[0] and isinstance(lines[0].get('dtboxes'), list)


def read_odgt_results(lines: Sequence[Any]) -> list[Any]:
    """Return the ``dtboxes`` of each image, with ``box`` as [x, y, width, height] and ``score``, as a results list.

    Lines and boxes of another layout stay in the list as they are, which is said where its entries are checked.
    """
    found = []
    for line in lines:
        found += [{'image_id': line['ID'], 'category_id': 'person', 'bbox': box.get('box'), 'score': box.get('score')}
                  if isinstance(box, Mapping) else box for box in line['dtboxes']] if is_odgt_results([line]) else [line]
    return found


def read_odgt(lines: list[Any], source: str, image_folder: Any, broken: Broken) -> tuple[dict, list[str]]:
    """Convert .odgt; return COCO's dict, and notes.

    The box is the full one, ``fbox``; ``vbox``, ``hbox``, ``fbox``, ``tag`` and ``ignore`` stay with each annotation. Boxes with
    ``ignore`` and those of another tag than person (``mask``: crowds, reflections) are ignored regions.
    """
    images, annotations, ignored = [], [], 0
    stated = all('height' in line and 'width' in line for line in lines if isinstance(line, dict))
    names = dict.fromkeys(['person'])
    for number, line in enumerate(lines):
        if not isinstance(line, dict) or not isinstance(line.get('gtboxes'), list) or 'ID' not in line:
            broken.add(f"{source}: line {number + 1}: expected an object with 'ID' and 'gtboxes', got {one_line(line, 80)}")
            continue
        extent = [1., 1.]
        for box in line['gtboxes']:
            where = f"{source}: line {number + 1}: image {line['ID']}"
            with broken.at(where):
                full = box.get('fbox') if isinstance(box, dict) else None
                if not isinstance(full, list) or len(full) != 4:
                    raise ValueError(f"{where}: expected 'fbox': [x, y, width, height], got {one_line(box, 80)}")
                extra = box.get('extra') or {}
                is_region = as_flag(extra.get('ignore'), f"{where}: 'ignore'")
                is_region |= box.get('tag', 'person') not in names
                ignored += is_region
                extent = [max(extent[0], full[0] + full[2]), max(extent[1], full[1] + full[3])]
                annotations.append({'id': len(annotations) + 1, 'image_id': line['ID'], 'category_id': 1, 'bbox': list(full),
                                    'area': full[2] * full[3], 'iscrowd': int(is_region), 'ignore': int(is_region),
                                    **{key: box[key] for key in ('fbox', 'vbox', 'hbox', 'tag') if key in box},
                                    **{key: extra[key] for key in ('occ', 'unsure', 'box_id') if key in extra}})
        image = {'id': line['ID'], 'file_name': f'{line["ID"]}.jpg'}
        if stated:
            image |= {'height': line['height'], 'width': line['width']}
        elif image_folder is None:
            image |= {'width': math.ceil(extent[0]), 'height': math.ceil(extent[1])}
        images.append(image)
    notes = [f'{ignored} boxes are ignored (extra.ignore, or a tag other than person)'] if ignored else []
    if not stated and image_folder is None:
        notes.append('the file states no sizes of images, so r counts what lies beyond their right and lower border; --images '
                     'FOLDER (image_folder=...) takes sizes from the image files')
    return {'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'person'}]}, notes
