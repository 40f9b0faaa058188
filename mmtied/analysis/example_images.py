"""Choose example images of an occlusion bucket, and draw them with their overlaps tinted."""

import functools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..atomic import atomic_folder
from ..evaluation.boxes import clip_boxes
from ..evaluation.buckets import Bucket
from ..evaluation.inputs.ground_truth import GroundTruth
from ..evaluation.inputs.images import check_folder, check_names, image_file, is_file, read_image
from ..evaluation.occlusion import image_ratios
from ..evaluation.reporting.pictures import box_corners, draw_boxes
from ..plotting import picture_font

if TYPE_CHECKING:
    from PIL import Image

#: Smallest side in pixels of an instance to show; smaller ones are shown only if the image has no larger one.
_SMALLEST_SIDE = 32
#: Color of overlaps, and its opacity for two boxes, for each further box, and at most.
OVERLAP_COLOR = (255, 0, 80)
_FIRST, _NEXT, _STRONGEST = .38, .13, .78
#: Desaturation of the photograph, which makes the tint stand out.
_GREY = .7
_HEIGHT, _ROW_HEIGHT, _SHEET_WIDTH, _GAP = 480, 280, 1280, 10
_MAX_NAMES = 4


class Choice(NamedTuple):
    """A random choice of images from a bucket.

    Attributes:
        bucket: The bucket.
        count: Maximum number of images.
        definition: One of `occlusion.OCCLUSION_RATIOS`.
        same_category: Count only instances of the same category as occluders.
        seed: The same seed chooses the same images.
        skip_missing: Choose only among images whose files exist, instead of raising an error.
    """

    bucket: Bucket
    count: int = 12
    definition: str = 'covered'
    same_category: bool = False
    seed: int = 0
    skip_missing: bool = False


def choose_images(ground_truth: GroundTruth, images: str | os.PathLike, choice: Choice) -> list[tuple[int, float]]:
    """Choose images whose files are in a folder; return the index and ratio r of each, by increasing r."""
    if choice.count < 1 or choice.seed < 0:
        raise ValueError(f'choice of images: count={choice.count}, seed={choice.seed}; expected a count of at least 1 and a seed '
                         'of at least 0')
    check_folder(images)
    ratios = image_ratios(ground_truth, choice.definition, choice.same_category)
    held = np.flatnonzero(choice.bucket.holds(ratios))
    if not len(held):
        known = ratios[~np.isnan(ratios)]
        found = f'ratios go from {known.min():.3g} to {known.max():.3g}' if len(known) else 'no image has an instance'
        raise ValueError(f'{ground_truth.source}: no image in the bucket {choice.bucket.name} ({choice.definition}); {found}')
    chosen = _with_files(ground_truth, images, held, choice)
    chosen = chosen[np.argsort(ratios[chosen], kind='stable')]
    return list(zip(chosen.tolist(), ratios[chosen].tolist(), strict=True))


def most_occluded(ground_truth: GroundTruth, image: int, ratios: np.ndarray) -> int:
    """Return the index of an image's most occluded annotation, preferring instances that are not small."""
    here = np.flatnonzero((ground_truth.image == image) & ~np.isnan(ratios))
    large = here[(ground_truth.boxes_xywh[here, 2:] >= _SMALLEST_SIDE).all(axis=1)]
    here = large if len(large) else here
    return int(here[np.argmax(ratios[here])])


def write_examples(ground_truth: GroundTruth, images: str | os.PathLike, folder: str | os.PathLike,
                   choice: Choice) -> list[Path]:
    """Draw chosen images, one picture each and a sheet of all, into a new folder that is written atomically.

    Overlaps of boxes are tinted whatever the definition of r; crowd regions are ignored. Returns the path of the sheet, then
    those of the pictures by increasing r.
    """
    chosen = choose_images(ground_truth, images, choice)
    with atomic_folder(folder) as temporary:
        examples = [_Example(ground_truth, image, ratio, images, choice.same_category) for image, ratio in chosen]
        names = []
        for example in examples:
            shown_id = str(example.image_id).replace('/', '_').replace('\\', '_')
            names.append(f'r{example.ratio:.2f}_{shown_id}.jpg')
            example.draw(_HEIGHT, 15).save(temporary / names[-1], quality=88)
        _sheet(examples).save(temporary / 'sheet.jpg', quality=85, optimize=True)
    return [Path(folder, name) for name in ('sheet.jpg', *names)]


def _with_files(ground_truth: GroundTruth, images: str | os.PathLike, held: np.ndarray, choice: Choice) -> np.ndarray:
    """Sample from the images of a bucket."""
    check_names(ground_truth, held)
    order, count = np.random.default_rng(choice.seed).permutation(held), choice.count
    exists = np.array([is_file(image_file(images, ground_truth.file_names[image])) for image in order.tolist()])
    if choice.skip_missing:
        order, exists = order[exists], exists[exists]
        if not len(order):
            raise ValueError(f'{images} has none of the {len(held)} images of the bucket')
    if not exists[:count].all():
        missing = [ground_truth.file_names[image] for image in order[:count][~exists[:count]].tolist()]
        shown = ', '.join(missing[:5]) + (' ...' if len(missing) > 5 else '')
        raise ValueError(f'{images} lacks {len(missing)} of the {len(exists[:count])} chosen images: {shown}; '
                         '--skip-missing draws others in their place')
    return order[:count]


class _Example:
    """An image of the bucket and its caption."""

    def __init__(self, ground_truth: GroundTruth, image: int, ratio: float, images: str | os.PathLike,
                 same_category: bool) -> None:
        here = np.flatnonzero((ground_truth.image == image) & ~ground_truth.crowd)
        self.boxes_xywh, self.ratio = ground_truth.boxes_xywh[here], float(ratio)
        self.image_id, self.size = ground_truth.image_ids[image], tuple(ground_truth.image_sizes[image].tolist())
        categories = ground_truth.category[here]
        self.groups = categories if same_category else None
        colors = category_colors(len(ground_truth.category_ids))
        self.colors = [colors[category] for category in categories.tolist()]
        counts = Counter(zip(ground_truth.names_of(categories), self.colors, strict=True))
        self.names = [(f'{name} {number}', color) for (name, color), number in counts.most_common()]
        self.picture = read_image(image_file(images, ground_truth.file_names[image]))

    def draw(self, height: int, font_size: int) -> 'Image.Image':
        """Draw the image above two lines of text: r, id and number of instances; and the most frequent categories."""
        from PIL import Image, ImageDraw

        drawn = draw_overlaps(self.picture, self.boxes_xywh, self.colors, self.size, height, self.groups)
        font, line = picture_font(font_size, (name for name, _ in self.names)), round(1.35 * font_size)
        picture = Image.new('RGB', (drawn.width, drawn.height + 2 * line + 4), 'white')
        picture.paste(drawn, (0, 0))
        draw = ImageDraw.Draw(picture)
        number = len(self.boxes_xywh)
        facts = [f'r = {self.ratio:.2f}', f'image {self.image_id}', f'{number} instance{"s" * (number != 1)}']
        while draw.textlength('   '.join(facts), font=font) > drawn.width and len(facts) > 1:
            facts.pop(1)
        draw.text((2, drawn.height + 2), '   '.join(facts), fill='black', font=font)
        place, top = 2, drawn.height + 2 + line
        for number, (name, color) in enumerate(self.names):
            end = place + line * .75 + draw.textlength(name, font=font)
            if number == _MAX_NAMES or end > drawn.width:
                draw.text((place, top), '...', fill='black', font=font)
                break
            draw.rectangle([place, top + line * .2, place + line * .5, top + line * .7], fill=color)
            draw.text((place + line * .7, top), name, fill='black', font=font)
            place = end + line * .6
        return picture


def _sheet(examples: Sequence[_Example]) -> 'Image.Image':
    """Arrange all examples in rows of equal width, with equal heights within each row."""
    from PIL import Image

    rows, row = [], []
    for number, example in enumerate(examples, 1):
        row.append(example)
        shapes = sum(each.size[1] / each.size[0] for each in row)
        height = int((_SHEET_WIDTH - _GAP * (len(row) + 1)) / shapes)
        if height <= _ROW_HEIGHT or number == len(examples):  # the row is full, or the last one
            rows.append([each.draw(min(height, _ROW_HEIGHT), 13) for each in row])
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


def draw_overlaps(image: 'Image.Image', boxes_xywh: np.ndarray, colors: Sequence[tuple[int, int, int]],
                  image_size: tuple[int, int], height: int, categories: np.ndarray | None = None) -> 'Image.Image':
    """Draw a desaturated copy of an RGB image, its boxes outlined and their overlaps tinted, deeper ones more strongly.

    Boxes are in pixels of the annotated image of `image_size` (height, width); the picture has the given `height`. With
    `categories`, only boxes of the same category overlap.
    """
    from PIL import Image, ImageDraw

    scale = height / image_size[0]
    depth = overlap_depth(boxes_xywh, image_size, categories, scale)
    small = image.convert('RGB').resize(depth.shape[::-1], Image.Resampling.LANCZOS)
    pixels = np.asarray(small, dtype=np.float64)
    pixels = (1 - _GREY) * pixels + _GREY * np.asarray(small.convert('L'), dtype=np.float64)[..., None]
    strength = np.where(depth >= 2, np.minimum(_FIRST + _NEXT * (depth - 2), _STRONGEST), 0.)[..., None]
    pixels = (1 - strength) * pixels + strength * np.array(OVERLAP_COLOR)
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    draw_boxes(ImageDraw.Draw(picture), box_corners(boxes_xywh, scale, picture.size), colors)
    return picture


def overlap_depth(boxes_xywh: np.ndarray, image_size: tuple[int, int], categories: np.ndarray | None = None,
                  scale: float = 1.) -> np.ndarray:
    """Count the boxes that cover the center of each pixel; with `categories`, the largest count within one category.

    The boxes, shape (N, 4), are in pixels of an image of `image_size` (height, width); the map is `scale` times that size.

    Example:
        >>> overlap_depth(np.array([[0., 0., 3., 1.], [1., 0., 3., 1.]]), (1, 5)).tolist()
        [[1, 2, 2, 1, 0]]
    """
    height, width = (max(1, round(side * scale)) for side in image_size)
    boxes = clip_boxes(np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4), image_size) * scale
    xs, ys = np.arange(width) + .5, np.arange(height) + .5
    in_x = ((xs >= boxes[:, :1]) & (xs < boxes[:, 2:3])).astype(np.int64)
    in_y = ((ys >= boxes[:, 1:2]) & (ys < boxes[:, 3:])).astype(np.int64)
    if categories is None:
        return in_y.T @ in_x
    groups = [np.asarray(categories) == category for category in np.unique(categories)]
    return np.max([np.zeros((height, width), dtype=np.int64), *(in_y[group].T @ in_x[group] for group in groups)], axis=0)


@functools.cache
def category_colors(num_categories: int) -> tuple[tuple[int, int, int], ...]:
    """Return a color for each category, distinguishable from the others, from grays and from the overlaps' red.

    Each color is the farthest, in CIELAB, from those before it. So a category's color does not depend on the number of
    categories, and the first ones differ most. Colors repeat after 300 categories.
    """
    levels = np.linspace(0, 255, 12).round()
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing='ij'), axis=-1).reshape(-1, 3)
    lab = _to_lab(candidates)
    vivid = (np.hypot(lab[:, 1], lab[:, 2]) > 30) & (lab[:, 0] > 45)
    candidates, lab = candidates[vivid], lab[vivid]
    distance = np.minimum(np.linalg.norm(lab - _to_lab(np.array(OVERLAP_COLOR)), axis=1),
                          np.linalg.norm(lab - _to_lab(np.array([255., 255., 255.])), axis=1))
    colors = []
    for _ in range(min(num_categories, 300)):
        chosen = int(distance.argmax())
        colors.append(tuple(map(int, candidates[chosen])))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen], axis=1))
    return tuple(colors[number % 300] for number in range(num_categories))


def _to_lab(colors: np.ndarray) -> np.ndarray:
    """Convert sRGB (0 to 255) to CIELAB under D65, both of shape (..., 3)."""
    values = np.asarray(colors, dtype=np.float64) / 255
    linear = np.where(values <= .04045, values / 12.92, ((values + .055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[.4124, .2126, .0193], [.3576, .7152, .1192], [.1805, .0722, .9505]]) / (.9505, 1., 1.089)
    x, y, z = np.moveaxis(np.where(xyz > .008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
