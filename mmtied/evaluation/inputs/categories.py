"""Map labels and names to categories: mmdet's label order, repeated names, models with other classes, LVIS's lists."""

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .arrays import Federated, GroundTruth
from .coco_json import positions
from .faults import shown
from .image_ids import plain_id


def merge_names(ground_truth: GroundTruth) -> GroundTruth:
    """Merge categories of the same name into the one with the most annotations.

    Roboflow writes the data set's root as a category, possibly named like its only class. Not for inputs that state category
    ids, such as COCO results.
    """
    ids, names = ground_truth.category_ids.tolist(), ground_truth.category_names
    counts = np.bincount(ground_truth.category, minlength=len(ids)).tolist()
    kept = {names[ids[place]]: place for place in sorted(range(len(ids)), key=lambda place: (counts[place], -place))}
    merged = np.array([kept[names[number]] for number in ids])
    moved = merged != np.arange(len(ids))
    if not moved.any() or ground_truth.federated:
        return ground_truth
    twice = sorted({names[ids[place]] for place in np.flatnonzero(moved).tolist()})
    note = (f'{", ".join(map(repr, twice))}: several categories have this name; their annotations count as one category, id '
            f'{ids[kept[twice[0]]]}')
    return replace(ground_truth, category=merged[ground_truth.category], merged=merged, notes=(*ground_truth.notes, note))


def label_category_ids(ground_truth: GroundTruth, classes: Sequence[str] | None = None) -> list[int]:
    """Return the category id of each label: like mmdet, number the categories in the order of the annotation file.

    Categories of the same name count as one, see `merge_names`. `classes` names the model's classes if it has fewer than the
    file; like mmdet, ignores their order and uses the file's.

    Example:
        >>> from .ground_truth import read_ground_truth
        >>> annotations = read_ground_truth({
        ...     'images': [{'id': 1, 'height': 9, 'width': 9}], 'annotations': [],
        ...     'categories': [{'id': 18, 'name': 'dog'}, {'id': 1, 'name': 'person'}, {'id': 17, 'name': 'cat'}]})
        >>> label_category_ids(annotations)
        [18, 1, 17]
        >>> label_category_ids(annotations, ['cat', 'dog'])
        [18, 17]
    """
    ids = _id_of_name(ground_truth)
    if classes is None:
        return list(ids.values())
    _check_names(ground_truth, classes, ids)
    return [category_id for name, category_id in ids.items() if name in classes]


def named_category_ids(ground_truth: GroundTruth, label_names: Sequence[str]) -> list[int]:
    """Return the category id of each label by its name, -1 if the annotation file has no such category."""
    ids = _id_of_name(ground_truth)
    found = [ids.get(name, -1) for name in label_names]
    if len(set(label_names)) < len(label_names) or max(found, default=-1) < 0:
        _check_names(ground_truth, label_names, ids)
    return found


def offset_hint(category_ids: Sequence, ground_truth: GroundTruth) -> str:
    """Return a hint, to append to a message, if shifting the results' unknown category ids by 1 makes them known; else ''.

    Example:
        >>> from .ground_truth import read_ground_truth
        >>> truth = read_ground_truth({'images': [{'id': 1, 'height': 9, 'width': 9}], 'annotations': [],
        ...                            'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}]})
        >>> offset_hint([0, 1, 1], truth)
        ', whose ids are 1 to 2, but those of results 0 to 1; --category-offset 1 (category_offset=1) shifts these'
    """
    ids = {number for number in map(plain_id, category_ids) if isinstance(number, int)}
    known = ground_truth.category_ids.tolist()
    for shift in (1, -1):
        if ids and {number + shift for number in ids} <= set(known):
            return (f', whose ids are {known[0]} to {known[-1]}, but those of results {min(ids)} to {max(ids)}; '
                    f'--category-offset {shift} (category_offset={shift}) shifts these')
    return ''


def read_federated(images: Sequence[dict], ground_truth: GroundTruth, where: str) -> Federated:
    """Return the categories listed by LVIS's images, which are in the order of the ground truth."""
    def cells_of(key: str) -> np.ndarray:
        found = [np.empty(0, dtype=np.int64)]
        for place, image in enumerate(images):
            listed, owner = image.get(key) or [], f'{where}: image id {image["id"]}: {key}'
            if not isinstance(listed, list) or not all(type(one) is int and abs(one) < 2**63 for one in listed):
                raise ValueError(f'{owner} must be a list of category ids, got {shown(listed)}')
            known = positions(np.asarray(listed, dtype=np.int64), ground_truth.category_ids)
            if (known < 0).any():
                raise ValueError(f'{owner} has {listed[int(np.argmin(known))]}, which is not a category')
            found.append(place * width + known)
        return np.unique(np.concatenate(found))

    width = len(ground_truth.category_ids)
    present = ground_truth.image * width + ground_truth.category
    return Federated(np.union1d(cells_of('neg_category_ids'), present), cells_of('not_exhaustive_category_ids'))


def read_frequencies(categories: Sequence[dict]) -> dict[int, str]:
    """Return LVIS's frequencies by category id; empty unless every category states one."""
    found = {int(category['id']): category.get('frequency') for category in categories}
    return found if set(found.values()) <= {'r', 'c', 'f'} else {}


def _id_of_name(ground_truth: GroundTruth) -> dict[str, int]:
    """Return the category id of each name, after merging, in the order of the file."""
    ids = ground_truth.category_ids
    merged = merge_names(ground_truth).merged if ground_truth.merged is None else ground_truth.merged
    kept = dict(zip(ids.tolist(), (ids if merged is None else ids[merged]).tolist(), strict=True))
    return {name: kept[number] for number, name in ground_truth.category_names.items()}


def _check_names(ground_truth: GroundTruth, classes: Sequence[str], ids: dict[str, int]) -> None:
    for number, name in enumerate(classes):
        if name not in ids:
            close = difflib.get_close_matches(str(name), [str(other) for other in set(ids) - set(classes)], 1)
            listed = ', '.join(map(str, list(ids)[:40])) + (f' and {len(ids) - 40} more' if len(ids) > 40 else '')
            raise ValueError(f'classes: {ground_truth.source} has no category named {name!r}; '
                             f'{f"did you mean {close[0]!r}? It" if close else "it"} has {listed}')
        if name in classes[:number]:
            raise ValueError(f'classes: {name!r} is repeated')
