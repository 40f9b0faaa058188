"""Train a backbone alone, on unlabeled images; the loss comes from hooks."""

import os

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import Tensor
from torch.utils.data import Dataset

from mmtied.cli import warn
from mmtied.compat import require
from mmtied.evaluation.inputs.images import list_images, read_image


@MODELS.register_module()
class BackboneAlone(BaseModel):
    """Backbone without a loss of its own, behind mmengine's ImgDataPreprocessor."""

    def __init__(self, backbone: dict, data_preprocessor: dict) -> None:
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs: Tensor, data_samples: object = None, mode: str = 'loss') -> dict | object:
        """Return no losses for ``mode='loss'``, and the backbone's output otherwise."""
        output = self.backbone(inputs)
        return {} if mode == 'loss' else output


@DATASETS.register_module()
class ImagesAlone(Dataset):
    """Images in a folder and its subfolders, randomly cropped and flipped.

    An unreadable image is replaced by the next one, with a warning. A crop covers a fraction of the image's area in the range
    `scale` and is resized to `size` x `size` pixels.
    """

    def __init__(self, folder: str | os.PathLike, size: int = 224, scale: tuple[float, float] = (.25, 1.)) -> None:
        require(['torchvision', 'PIL'], 'Training on a folder of images')
        from torchvision import transforms
        self.paths = list_images(folder)
        self.augment = transforms.Compose([transforms.RandomResizedCrop(size, scale), transforms.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return the image as ``inputs``, uint8 of shape (3, size, size), in BGR as mmcv loads images."""
        for path in (self.paths + self.paths)[index:index + 10]:
            try:
                pixels = np.asarray(self.augment(read_image(path)))
            except ValueError as error:
                warn(f'{error}; it is skipped')
            else:
                return {'inputs': torch.from_numpy(pixels[:, :, ::-1].copy()).permute(2, 0, 1)}
        raise ValueError(f'images: {self.paths[index]} and those after it cannot be read')
