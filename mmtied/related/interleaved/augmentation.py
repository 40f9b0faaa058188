"""ImageNet's augmentation as in the authors' training script: random scale and aspect ratio, and jitter of colors.

The paper refers to that of ResNet; its script differs. Both transforms work in any pipeline of mmcv.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import TRANSFORMS, BaseTransform

from mmtied.arguments import suggest_arguments


@TRANSFORMS.register_module()
@suggest_arguments
class RandomScaleAspect(BaseTransform):
    """Resize an image to a random scale and aspect ratio.

    The shorter side becomes s, uniform in `scale`; then width and height are multiplied by 2 a / (1 + a) and 2 / (1 + a), with a
    uniform in [1 - aspect, 1 + aspect]. Neither side gets shorter than the smallest s, so a crop of that size always fits.

    Args:
        scale: Smallest and largest length of the shorter side in pixels.
        aspect: Largest relative change of the ratio of width to height, in [0, 1).

    Raises:
        ValueError: `scale` is not two increasing positive integers, or `aspect` is out of range.
    """

    def __init__(self, scale: Sequence[int] = (256, 480), aspect: float = 0.25) -> None:
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f'RandomScaleAspect: scale={tuple(scale)}, expected the smallest and the largest '
                             'length of the shorter side in pixels')
        if not 0 <= aspect < 1:
            raise ValueError(f'RandomScaleAspect: aspect={aspect!r}, expected a number in [0, 1)')
        self.scale = tuple(scale)
        self.aspect = aspect

    def transform(self, results: dict) -> dict:
        """Resize results['img'], shape (H, W, 3), and set its img_shape."""
        height, width = results['img'].shape[:2]
        factor = np.random.uniform(*self.scale) / min(height, width)
        ratio = np.random.uniform(1 - self.aspect, 1 + self.aspect)
        size = [max(self.scale[0], round(2 * factor * side / (1 + ratio))) for side in (width * ratio, height)]
        shrinks = size[0] * size[1] < width * height
        results['img'] = cv2.resize(results['img'], size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
@suggest_arguments
class HSLJitter(BaseTransform):
    """Add a random offset to hue, saturation and lightness of a BGR image, clipped to their ranges.

    Args:
        hue: Largest offset of the hue, of 180.
        saturation: Largest offset of the saturation, of 255.
        lightness: Largest offset of the lightness, of 255.

    Raises:
        ValueError: A negative offset.
    """

    def __init__(self, hue: int = 36, saturation: int = 50, lightness: int = 50) -> None:
        if min(hue, saturation, lightness) < 0:
            raise ValueError(f'HSLJitter: hue={hue}, saturation={saturation}, lightness={lightness}, expected numbers from 0 up')
        self.offsets = (hue, lightness, saturation)  # in OpenCV's order

    def transform(self, results: dict) -> dict:
        """Change the colors of results['img'], shape (H, W, 3), uint8."""
        offsets = [round(np.random.uniform(-offset, offset)) for offset in self.offsets]
        colors = cv2.cvtColor(results['img'], cv2.COLOR_BGR2HLS).astype(np.int16) + offsets
        colors = np.clip(colors, 0, (180, 255, 255)).astype(np.uint8)
        results['img'] = cv2.cvtColor(colors, cv2.COLOR_HLS2BGR)
        return results
