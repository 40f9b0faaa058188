"""Example images of a bucket with their overlaps tinted: one picture each, and all on one sheet."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..atomic import atomic_folder
from ..evaluation.buckets import Bucket
from ..evaluation.inputs.ground_truth import GroundTruth
from ..evaluation.inputs.images import check_folder, check_names, read_image
from ..evaluation.occlusion import image_ratios
from .overlap_drawing import category_colours, draw_overlaps

if TYPE_CHECKING:
    from PIL import Image

_HEIGHT, _ROW_HEIGHT, _SHEET_WIDTH, _GAP = 480, 280, 1280, 10
_MOST_NAMES = 4


def bucket_between(lower: float, upper: float) -> Bucket:
    """The images with lower <= r < upper; 0 to 0 for r = 0, above 0 where `lower` is 0, and up to 1 where `upper` is 1.

    Raises:
        ValueError: Not such a range.

    Example:
        >>> [bucket_between(*ends).name for ends in ((0, 0), (0, 0.1), (0.8, 0.9), (0.9, 1))]
        ['r=0', '(0,0.1)', '[0.8,0.9)', '[0.9,1]']
    """
    if lower == upper == 0:
        return Bucket('r=0', 0., 0., holds_upper=True)
    if not (0 <= lower < upper < np.inf):
        raise ValueError(f'bucket: two numbers 0 <= lower < upper are needed, or 0 0 for r = 0, got {lower:g} {upper:g}')
    left, right = '(' if lower == 0 else '[', ']' if upper == 1 else ')'
    return Bucket(f'{left}{lower:g},{upper:g}{right}', lower, upper, left == '[', right == ']')


def write_examples(ground_truth: GroundTruth, images: str | os.PathLike, folder: str | os.PathLike, bucket: Bucket,
                   count: int = 12, definition: str = 'covered', same_category: bool = False, seed: int = 0,
                   skip_missing: bool = False) -> list[Path]:
    """Draw images of a bucket, chosen by chance, into a new folder, whole or not at all.

    Overlaps of boxes are tinted, for every definition; crowd regions neither count nor are drawn.

    Args:
        ground_truth: The annotations, with file names.
        images: Folder of the image files.
        folder: Folder to make; it may exist when it is empty.
        bucket: The bucket.
        count: Most images to draw.
        definition: One of `occlusion.DEFINITIONS`.
        same_category: Count only instances of the same category as occluders.
        seed: The same seed chooses the same images.
        skip_missing: Choose among the images whose files exist, instead of raising.

    Returns:
        The sheet's path, then those of the pictures by rising r.

    Raises:
        ValueError: No image in the bucket, image files missing or unreadable, no file names.
    """
    if count < 1:
        raise ValueError(f'count: at least 1 image is needed, got {count}')
    ratios = image_ratios(ground_truth, definition, same_category)
    held = np.flatnonzero(bucket.holds(ratios))
    if not len(held):
        known = ratios[~np.isnan(ratios)]
        there = f'ratios go from {known.min():.3g} to {known.max():.3g}' if len(known) else 'no image has an instance'
        raise ValueError(f'{ground_truth.source}: no image in the bucket {bucket.name} ({definition}); {there}')
    chosen = _choose(ground_truth, Path(images), held, count, seed, skip_missing)
    chosen = chosen[np.argsort(ratios[chosen], kind='stable')]
    with atomic_folder(folder) as temporary:
        examples = [_Example(ground_truth, image, ratios[image], Path(images), same_category) for image in chosen.tolist()]
        names = []
        for example in examples:
            names.append(f'r{example.ratio:.2f}_{example.image_id}.jpg')
            _captioned(example, _HEIGHT, 15).save(temporary / names[-1], quality=88)
        _sheet(examples).save(temporary / 'sheet.jpg', quality=85, optimize=True)
    return [Path(folder, name) for name in ('sheet.jpg', *names)]


class _Example:
    """One image of the bucket: what is drawn, and what is written below it."""

    def __init__(self, ground_truth: GroundTruth, image: int, ratio: float, images: Path, same_category: bool) -> None:
        here = np.flatnonzero((ground_truth.image == image) & ~ground_truth.crowd)
        self.boxes_xywh, self.ratio = ground_truth.boxes_xywh[here], float(ratio)
        self.image_id, self.size = int(ground_truth.image_ids[image]), tuple(ground_truth.image_sizes[image].tolist())
        categories = ground_truth.category[here]
        self.groups = categories if same_category else None
        colours = category_colours(len(ground_truth.category_ids))
        self.colours = [colours[category] for category in categories.tolist()]
        names = [str(ground_truth.category_names[category_id]) for category_id in ground_truth.category_ids.tolist()]
        self.names = [(f'{names[category]} {number}', colours[category])
                      for category, number in Counter(categories.tolist()).most_common()]
        self.picture = read_image(images / ground_truth.file_names[image])

    def draw(self, height: int) -> 'Image.Image':
        return draw_overlaps(self.picture, self.boxes_xywh, self.colours, self.size, height, self.groups)


def _choose(ground_truth: GroundTruth, images: Path, held: np.ndarray, count: int, seed: int, skip_missing: bool) -> np.ndarray:
    """Positions of the images to draw."""
    check_folder(images)
    check_names(ground_truth, held)
    order = np.random.default_rng(seed).permutation(held)
    there = np.array([(images / ground_truth.file_names[image]).is_file() for image in order.tolist()])
    if skip_missing:
        order, there = order[there], there[there]
        if not len(order):
            raise ValueError(f'{images} has none of the {len(held)} images of the bucket')
    if not there[:count].all():
        missing = [ground_truth.file_names[image] for image in order[:count][~there[:count]].tolist()]
        shown = ', '.join(missing[:5]) + (' ...' if len(missing) > 5 else '')
        raise ValueError(f'{images} lacks {len(missing)} of the {len(there[:count])} chosen images: {shown}; '
                         'skipping missing files (--skip-missing) chooses among those that are there')
    return order[:count]


def _captioned(example: _Example, height: int, font_size: int) -> 'Image.Image':
    """The drawing with two lines below: r, image id and instances; then the most frequent categories in their colours."""
    from PIL import Image, ImageDraw, ImageFont

    drawn = example.draw(height)
    font, line = ImageFont.load_default(font_size), round(1.35 * font_size)
    picture = Image.new('RGB', (drawn.width, drawn.height + 2 * line + 4), 'white')
    picture.paste(drawn, (0, 0))
    draw = ImageDraw.Draw(picture)
    number = len(example.boxes_xywh)
    facts = [f'r = {example.ratio:.2f}', f'image {example.image_id}', f'{number} instance{"s" * (number != 1)}']
    while draw.textlength('   '.join(facts), font=font) > drawn.width and len(facts) > 1:
        facts.pop(1)
    draw.text((2, drawn.height + 2), '   '.join(facts), fill='black', font=font)
    place, top = 2, drawn.height + 2 + line
    for number, (name, colour) in enumerate(example.names):
        end = place + line * .75 + draw.textlength(name, font=font)
        if number == _MOST_NAMES or end > drawn.width:
            draw.text((place, top), '...', fill='black', font=font)
            break
        draw.rectangle([place, top + line * .2, place + line * .5, top + line * .7], fill=colour)
        draw.text((place + line * .7, top), name, fill='black', font=font)
        place = end + line * .6
    return picture


def _sheet(examples: Sequence[_Example]) -> 'Image.Image':
    """All examples in rows of one width, the images of a row equally high."""
    from PIL import Image

    rows, row = [], []
    for number, example in enumerate(examples, 1):
        row.append(example)
        shapes = sum(each.size[1] / each.size[0] for each in row)
        height = int((_SHEET_WIDTH - _GAP * (len(row) + 1)) / shapes)
        if height <= _ROW_HEIGHT or number == len(examples):  # wide enough to fill the sheet, or the last row
            rows.append([_captioned(each, min(height, _ROW_HEIGHT), 13) for each in row])
            row = []
    sheet = Image.new('RGB', (_SHEET_WIDTH, _GAP + sum(row[0].height + _GAP for row in rows)), 'white')
    top = _GAP
    for row in rows:
        left = _GAP
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + _GAP
        top += row[0].height + _GAP
    return sheet
