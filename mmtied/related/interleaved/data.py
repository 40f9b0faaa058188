"""Data of the paper's experiments that mmpretrain lacks: the augmentation of ImageNet, and SVHN (Section 5.1).

The paper refers to ResNet's augmentation of ImageNet, but the authors' script uses random scales, aspect ratios and color jitter.
Both transforms work in any mmcv pipeline.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmcv.transforms import TRANSFORMS, BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from numpy.typing import NDArray

from mmtied.arguments import suggest_arguments
from mmtied.compat import require

SPLITS = ('train', 'all', 'val', 'test')
#: Images of each digit held out for validation, by file.
HELD_OUT = {'train': 400, 'extra': 200}


@TRANSFORMS.register_module()
@suggest_arguments
class RandomScaleAspect(BaseTransform):
    """Resize an image to a random scale and aspect ratio.

    The shorter side becomes s, uniform in `scale`; then width and height are multiplied by 2 a / (1 + a) and 2 / (1 + a), with a
    uniform in [1 - aspect, 1 + aspect]. Neither side becomes shorter than the smallest s, so a crop of that size always fits.

    Args:
        scale: Smallest and largest length of the shorter side in pixels.
        aspect: Largest relative change of the aspect ratio, in [0, 1).
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
        hue: Largest offset of the hue, whose range is 0 to 180.
        saturation: Largest offset of the saturation, whose range is 0 to 255.
        lightness: Largest offset of the lightness, whose range is 0 to 255.
    """

    def __init__(self, hue: int = 36, saturation: int = 50, lightness: int = 50) -> None:
        if min(hue, saturation, lightness) < 0:
            raise ValueError(f'HSLJitter: hue={hue}, saturation={saturation}, lightness={lightness}, expected numbers >= 0')
        self.offsets = (hue, lightness, saturation)  # in OpenCV's order

    def transform(self, results: dict) -> dict:
        """Change the colors of results['img'], shape (H, W, 3), uint8."""
        offsets = [round(np.random.uniform(-offset, offset)) for offset in self.offsets]
        colors = cv2.cvtColor(results['img'], cv2.COLOR_BGR2HLS).astype(np.int16) + offsets
        colors = np.clip(colors, 0, (180, 255, 255)).astype(np.uint8)
        results['img'] = cv2.cvtColor(colors, cv2.COLOR_HLS2BGR)
        return results


@DATASETS.register_module()
class SVHN(BaseDataset):
    """Street View House Numbers: cropped digits of 32 x 32 pixels, RGB.

    Reads ``train_32x32.mat``, ``extra_32x32.mat`` and ``test_32x32.mat`` from http://ufldl.stanford.edu/housenumbers, which
    ``torchvision.datasets.SVHN`` downloads too. Splits:

    - 'train': training and extra images without those of 'val', 598 388 images.
    - 'all': all training and extra images, 604 388, on which the authors' code trains.
    - 'val': 400 training and 200 extra images of each digit, drawn with a fixed seed, 6 000 images.
    - 'test': 26 032 images.

    Args:
        data_root: Folder with the three files.
        split: 'train', 'all', 'val' or 'test'.
        seed: Random seed of the division into 'train' and 'val'.
        **dataset: Other arguments of mmengine's BaseDataset, such as pipeline and indices.
    """

    METAINFO = {'classes': tuple('0123456789')}

    def __init__(self, data_root: str | os.PathLike = '', split: str = 'train', seed: int = 0, **dataset) -> None:
        if split not in SPLITS:
            raise ValueError(f'SVHN: split={split!r}, expected one of {", ".join(SPLITS)}')
        self.split = split
        self.seed = seed
        super().__init__(data_root=os.fspath(data_root), **dataset)

    def load_data_list(self) -> list[dict]:
        """Read the images of the split and return their labels; `get_data_info` adds the image."""
        files = ('test', ) if self.split == 'test' else ('train', 'extra')
        images, labels = zip(*(self._read(name) for name in files), strict=True)
        if self.split in ('train', 'val'):
            rng = np.random.default_rng(self.seed)
            kept = [(held == (self.split == 'val')) for held in (_hold_out(name, values, rng)
                                                                 for name, values in zip(files, labels, strict=True))]
            images, labels = ([values[mask] for values, mask in zip(parts, kept, strict=True)] for parts in (images, labels))
        self._images = np.concatenate(images)
        return [{'gt_label': int(label), 'position': position} for position, label in enumerate(np.concatenate(labels))]

    def get_data_info(self, idx: int) -> dict:
        """Return the label and the image, shape (32, 32, 3), uint8."""
        info = super().get_data_info(idx)
        info['img'] = self._images[info['position']]
        return info

    def _read(self, name: str) -> tuple[NDArray, NDArray]:
        """Return images (N, 32, 32, 3) and digits (N,) of a file."""
        require('scipy', 'Reading SVHN')
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
        path = Path(self.data_root or '.') / f'{name}_32x32.mat'
        if not path.is_file():
            raise ValueError(f'SVHN: {path} not found; download it from http://ufldl.stanford.edu/housenumbers/{path.name}')
        try:
            content = loadmat(path)
            images, digits = content['X'], content['y'].flatten()
        except (KeyError, ValueError, TypeError, OSError, NotImplementedError, MatReadError) as error:
            raise ValueError(f'SVHN: {path} is not a file of cropped digits with X and y ({error}); download it again') from None
        if images.shape != (32, 32, 3, len(digits)):
            raise ValueError(f'SVHN: {path} has X of shape {images.shape} and {len(digits)} labels, expected (32, 32, 3, N)')
        return images.transpose(3, 0, 1, 2), digits.astype(int) % 10  # the files call 0 "10"


def _hold_out(name: str, digits: NDArray, rng: np.random.Generator) -> NDArray:
    """Draw the held-out images of a file, as a mask of shape (N,)."""
    held = np.zeros(len(digits), bool)
    for digit in range(10):
        positions = np.flatnonzero(digits == digit)
        if len(positions) < HELD_OUT[name]:
            raise ValueError(f'SVHN: {name}_32x32.mat has {len(positions)} images of the digit {digit}, expected at least '
                             f'{HELD_OUT[name]}')
        held[rng.choice(positions, HELD_OUT[name], replace=False)] = True
    return held
