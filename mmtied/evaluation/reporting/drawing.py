"""Draw one image with its ground truth and predictions, as a small picture for the report page."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pycocotools import mask as mask_api

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

#: Blue and orange: told apart by every common kind of colour vision, and in grey.
TRUTH_COLOUR, PREDICTION_COLOUR = '#2A7BFF', '#FF8C1A'
#: Longest side of a drawn image in pixels.
LONGEST_SIDE = 480
_LABEL_LENGTH = 22


class Shapes(NamedTuple):
    """What is drawn on an image in one colour.

    Args:
        boxes_xywh: In pixels of the annotated image, shape (N, 4).
        labels: A short text for each.
        rles: Run-length codes of the masks, where there are any.
    """

    boxes_xywh: np.ndarray
    labels: Sequence[str]
    rles: Sequence[dict] | None = None


def draw_example(image: 'Image.Image', size: tuple[int, int], truth: Shapes, predictions: Shapes) -> 'Image.Image':
    """The image, made small, with ground truth and predictions in two colours.

    Labels of predictions stand at the upper left of their boxes, those of ground truth at the lower left; a label that would
    cover another one is left out.

    Args:
        image: RGB.
        size: Height and width that the shapes refer to.
        truth: Ground truth.
        predictions: Predictions, the most certain first.
    """
    from PIL import Image, ImageDraw, ImageFont

    scale = LONGEST_SIDE / max(size)
    width, height = (max(1, round(side * scale)) for side in (size[1], size[0]))
    small = image.convert('RGB').resize((width, height), Image.Resampling.LANCZOS)
    layers = ((truth, TRUTH_COLOUR), (predictions, PREDICTION_COLOUR))
    for shapes, colour in layers:
        for rle in shapes.rles or ():
            small = _tint(small, rle, colour)
    draw, font = ImageDraw.Draw(small), ImageFont.load_default(13)
    for shapes, colour in layers:
        for box in _corners(shapes, scale, width, height):
            draw.rectangle([box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1], outline='#101010', width=1)
            draw.rectangle(box, outline=colour, width=2)
    taken = []
    for shapes, colour in reversed(layers):
        for box, label in zip(_corners(shapes, scale, width, height), shapes.labels, strict=True):
            _label(draw, font, box, label, colour, taken, (width, height))
    return small


def jpeg_uri(picture: 'Image.Image', quality: int = 80) -> str:
    """A picture as a data URI of a JPEG."""
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=quality, optimize=True)
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'


def _corners(shapes: Shapes, scale: float, width: int, height: int) -> list[list[int]]:
    """Boxes xyxy in whole pixels of the small picture, inside it and at least 3 pixels wide and high."""
    boxes = np.asarray(shapes.boxes_xywh, dtype=float).reshape(-1, 4) * scale
    low = np.clip(boxes[:, :2], 0, [max(width - 4, 0), max(height - 4, 0)])
    high = np.clip(boxes[:, :2] + boxes[:, 2:], low + 3, [max(width - 1, 3), max(height - 1, 3)])
    return np.concatenate([low, high], axis=1).round().astype(int).tolist()


def _tint(picture: 'Image.Image', rle: dict, colour: str) -> 'Image.Image':
    """The picture with a mask tinted."""
    from PIL import Image

    mask = Image.fromarray(90 * mask_api.decode(rle).astype(np.uint8))
    return Image.composite(Image.new('RGB', picture.size, colour), picture, mask.resize(picture.size, Image.Resampling.BILINEAR))


def _label(draw: 'ImageDraw.ImageDraw', font: 'ImageFont.FreeTypeFont', box: list[int], label: str, colour: str,
           taken: list[tuple[int, int, int, int]], size: tuple[int, int]) -> None:
    """Write a label in a corner of a box unless another label is there, and note where it stands."""
    text = ' '.join(label.split())
    text = text if len(text) <= _LABEL_LENGTH else f'{text[:_LABEL_LENGTH - 1]}…'
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    wide, high = int(right - left) + 4, int(bottom - top) + 4
    x = max(0, min(box[0], size[0] - wide))
    y = box[1] if colour == PREDICTION_COLOUR else box[3] - high + 1
    y = max(0, min(y, size[1] - high))
    place = (x, y, x + wide, y + high)
    if any(place[0] < other[2] and other[0] < place[2] and place[1] < other[3] and other[1] < place[3] for other in taken):
        return
    taken.append(place)
    draw.rectangle(place, fill=colour)
    draw.text((x + 2 - left, y + 2 - top), text, fill='white' if colour == TRUTH_COLOUR else 'black', font=font)
