"""Detect the layout of annotations by content, and convert them to a dict in COCO's layout with the matching reader."""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import crowdhuman, exports, open_images, openmmlab, visdrone, voc, yolo
from .coco_json import read_json
from .content import files_with_suffix, is_json_lines, other_kind, read_bytes
from .faults import Broken, one_line
from .images import check_folder

#: Keys of an instances file.
_COCO_KEYS = ('images', 'annotations', 'categories')
#: Readers of other layouts, by keys and types of a JSON value, or by the keys of a list's first entry.
_READERS = {openmmlab.read_middle_format: {'data_list': list}, exports.read_datumaro: {'items': list, 'categories': dict}}
_READERS_OF_LISTS = {('data', key): exports.read_label_studio for key in ('annotations', 'completions')}
#: Unsupported layouts by their keys, with advice.
_UNSUPPORTED = {
    ('shapes', 'imagePath'): "one image of LabelMe; convert the folder to COCO's layout (labelme2coco)",
    ('_via_img_metadata', ): "a project of VIA (VGG Image Annotator); export it in COCO's layout",
    ('classes', 'labels'): "FiftyOne's own layout; export with dataset_type=fiftyone.types.COCODetectionDataset",
    ('state_dict', ): 'a checkpoint',
    ('definition', 'per_category'): 'a report of mmtied',
    ('data', 'classes'): 'predictions of another layout',
    ('objects', 'size'): 'one image of Supervisely; export the project as COCO',
    ('data_row', 'projects'): "Labelbox's export; convert it to COCO's layout (labelbox has a converter)",
    ('videos', 'annotations'): 'of a video (YouTube-VIS, TAO); only images are supported',
    ('asset', 'regions'): "one image of VoTT; convert the folder to COCO's layout",
    ('metadata', 'instances'): 'one image of SuperAnnotate; export the project as COCO',
    ('item', 'annotations'): 'one image of V7 (Darwin JSON); export the data set as COCO',
    ('imgHeight', 'objects'): "one image of Cityscapes; mmdet's tools/dataset_converters/cityscapes.py converts the folder",
}
#: The same for dicts by image, by the keys of the first value.
_UNSUPPORTED_BY_IMAGE = {('filename', 'regions'): _UNSUPPORTED['_via_img_metadata', ]}
#: The same for lists and JSON lines, by the keys of the first entry.
_UNSUPPORTED_LISTS = {
    ('image', 'annotations'): "CreateML's layout; export as COCO",
    ('name', 'labels'): "BDD100K's (Scalabel's) layout; convert it with bdd100k.label.to_coco or scalabel.label.to_coco",
    ('data_row', 'projects'): _UNSUPPORTED['data_row', 'projects'],
    ('annotator', 'annotation_id'): "Label Studio's JSON-MIN; export as JSON or COCO",
    ('file_name', 'objects'): "metadata of a Hugging Face image folder; convert it to COCO's layout",
    ('class', 'confidence', 'box'): "ultralytics' Results.to_json, of one image and without its id; val with save_json=True "
                                    'writes predictions.json',
    ('frame_id', 'objects'): "darknet's list of images with objects; `darknet detector valid` with eval=coco writes COCO's",
}


def read_annotations(annotations: Any, image_folder: str | os.PathLike | None = None,
                     skip_invalid: bool = False) -> tuple[dict, str, list[str]]:
    """Read annotations of any layout: a file or folder, a dict in COCO's or OpenMMLab's layout, or a pycocotools ``COCO``.

    `image_folder` provides image sizes that the annotations lack. `skip_invalid` leaves out unreadable records.

    Returns:
        A dict in COCO's layout, the name of the source for messages, and notes on how it was read.
    """
    annotations = getattr(annotations, 'dataset', annotations)
    source = 'annotations' if isinstance(annotations, Mapping) else str(annotations)
    if image_folder is not None:
        check_folder(image_folder)
    broken = Broken(source, skip_invalid)
    if isinstance(annotations, Mapping):
        data, notes = _from_json(annotations, broken)
    elif isinstance(annotations, str | os.PathLike):
        data, notes = _from_path(Path(annotations), image_folder, broken)
    else:
        raise ValueError('annotations: expected a file, a folder, a dict in COCO format or a pycocotools COCO, got '
                         f'{type(annotations).__name__}')
    line = broken.settle()
    if line:
        warnings.warn(line, stacklevel=3)
        notes = [*notes, line]
    return data, source, notes


def _from_path(path: Path, image_folder: Any, broken: Broken) -> tuple[dict, list[str]]:
    if path.is_dir() or voc.xml_files(path):
        return _from_folder(path, image_folder, broken)
    content = read_bytes(path)
    if exports.is_cvat(content):
        return exports.read_cvat(content, broken)
    if open_images.is_open_images(content):
        return open_images.read_open_images(content, path, image_folder, broken)
    are_lines = is_json_lines(content)
    data = json_lines(content, broken) if are_lines else read_json(path, content)
    lines = data if isinstance(data, list) else [data]  # .odgt with one image is also plain JSON
    if crowdhuman.is_odgt(lines):
        return crowdhuman.read_odgt(lines, image_folder, broken)
    if are_lines:
        known = known_layout(lines)
        raise ValueError(f'{broken.source}: ' + (
            f'it is {known}' if known else f"JSON lines, but not of CrowdHuman's .odgt, whose lines have 'ID' and 'gtboxes'; "
            f"the first has {_keys(lines[0])}. Annotations are read as COCO's JSON and the layouts of docs/formats.md"))
    return _from_json(data, broken)


def json_lines(content: bytes, broken: Broken) -> list[Any]:
    """Parse JSON lines; invalid lines are added to `broken`."""
    values = []
    for number, line in enumerate(content.removeprefix(b'\xef\xbb\xbf').splitlines(), 1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                broken.add(f'{broken.source}: line {number} is not complete JSON ({one_line(error)})')
    return values


def _from_folder(path: Path, image_folder: Any, broken: Broken) -> tuple[dict, list[str]]:
    if voc.xml_files(path):
        return voc.read_voc(path, broken)
    if yolo.is_yolo(path):
        return yolo.read_yolo(path, image_folder, broken)
    if visdrone.is_visdrone(path):
        return visdrone.read_visdrone(path, image_folder, broken)
    held = sorted(file.name for file in path.iterdir())
    first = next((file for suffix in ('.json', '.txt') for file in files_with_suffix(path, suffix)), None)
    kind = first and _describe_file(first)
    raise ValueError(f'{path}: a folder with neither XML files of Pascal VOC (in Annotations) nor text files of YOLO (in labels) '
                     'or VisDrone (in annotations); expected such a folder or a file such as instances.json; this one has '
                     f'{one_line(", ".join(held[:5])) or "no files"}' + (f'; {first.name} is {kind}' if kind else ''))


def _describe_file(file: Path) -> str | None:
    """Describe the layout of an unsupported file, if known."""
    try:
        return known_layout(read_json(file))
    except ValueError:
        return other_kind(read_bytes(file))


def _from_json(data: Any, broken: Broken) -> tuple[dict, list[str]]:
    missing = [key for key in _COCO_KEYS if not isinstance(data, Mapping) or key not in data]
    if not missing:
        first = data['annotations'][0] if isinstance(data['annotations'], list) and data['annotations'] else None
        if isinstance(first, Mapping) and 'segments_info' in first:
            raise ValueError(f"{broken.source}: it is COCO's panoptic layout; give the instances file, or convert it with "
                             "panopticapi's panoptic2detection_coco_format.py")
        notes = data['info'].get('notes') if isinstance(data.get('info'), Mapping) else None
        return data, list(notes) if isinstance(notes, list) else []
    first = data[0] if isinstance(data, list) and data else None
    read = _match_keys(first, _READERS_OF_LISTS)
    for reader, kinds in _READERS.items() if isinstance(data, Mapping) else ():
        if all(isinstance(data.get(key), kind) for key, kind in kinds.items()):
            read = reader
    if read:
        return read(data, broken)
    known = known_layout(data)
    if known:
        reason = f'it is {known}'
    elif isinstance(data, Mapping):
        reason = f'it has {_keys(data)}' + (f' and lacks {", ".join(missing)}' if len(missing) < len(_COCO_KEYS) else '')
    elif not isinstance(first, Mapping):
        reason = 'it is an empty list' if data == [] else f'it is a {type(data).__name__}'
    elif 'score' in first or 'scores' in first:
        reason = 'it is a list of results; annotations come first, results second'
    elif 'bbox' in first:
        reason = "it is the list of 'annotations' alone; images and categories are needed too"
    else:
        reason = f'it is a list of objects with {_keys(first)}'
    raise ValueError(f"{broken.source}: not a COCO instances file, which has 'images', 'annotations' and 'categories'; {reason}")


def known_layout(data: Any) -> str | None:
    """Describe a known but unsupported layout, with advice, by the keys of a JSON value or of its first entry."""
    if isinstance(data, Mapping):
        return _match_keys(data, _UNSUPPORTED) or _match_keys(next(iter(data.values()), None), _UNSUPPORTED_BY_IMAGE)
    return _match_keys(data[0], _UNSUPPORTED_LISTS) if isinstance(data, list) and data else None


def _match_keys(value: Any, table: Mapping[tuple[str, ...], Any]) -> Any:
    """Return the first entry of a table whose keys are all in a value, or None."""
    if not isinstance(value, Mapping):
        return None
    return next((entry for keys, entry in table.items() if all(key in value for key in keys)), None)


def _keys(value: Any) -> str:
    return one_line(', '.join(map(repr, list(value)[:8])) or 'nothing') if isinstance(value, Mapping) else one_line(value, 60)
