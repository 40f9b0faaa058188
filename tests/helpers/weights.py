"""Weightings of images."""

import torch
from torch import Tensor


def image_weights(num_images: int, num_draws: int, seed: int, device: str = 'cpu') -> Tensor:
    """Draw images with replacement, as a bootstrap does: how often each draw holds each image, shape (R, I) int16."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(max(num_images, 1), (num_draws, num_images), generator=generator)
    weights = torch.zeros(num_draws, num_images, dtype=torch.int16)
    return weights.scatter_add_(1, drawn, torch.ones_like(weights)).to(device)
