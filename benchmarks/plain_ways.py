"""Plain ways to compute a tied block convolution, each a layer of its own, and the untied grouped convolution beside them.

All but the last compute what `TBC` computes, from the same thin weight, and make what they need of it in every call, as a layer
must whose weight is being trained. What comes in channels_last goes out in channels_last, so that a network around them would
not pay for their choice.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtied.layers import TBC

#: Ours, and the convolution that is untied and so computes something else, by their names in the tables.
OURS, UNTIED = 'TBC', 'grouped, untied'


class _Plain(nn.Module):
    """A copy of a TBC's weight and settings."""

    def __init__(self, layer: TBC) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.num_blocks, self.stride, self.padding = layer.num_blocks, layer.stride, layer.padding

    @staticmethod
    def fits(layer: TBC) -> bool:
        """Whether the way can compute this layer."""
        return True


class FoldIntoBatch(_Plain):
    """The authors' layer: blocks become images of the batch. In channels_last its reshape copies, and so does the way back."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        images, channels = x.shape[:2]
        out = F.conv2d(x.reshape(images * self.num_blocks, channels // self.num_blocks, *x.shape[2:]), self.weight, None,
                       self.stride, self.padding)
        out = out.reshape(images, -1, *out.shape[2:])
        return out.contiguous(memory_format=torch.channels_last) if _is_channels_last(x) else out


class RepeatWeight(_Plain):
    """A grouped convolution with the weight repeated for each block."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        return F.conv2d(x, self.weight.repeat(self.num_blocks, 1, 1, 1), None, self.stride, self.padding, 1, self.num_blocks)


class DenseWeight(_Plain):
    """A standard convolution whose weight is block-diagonal; its zeros are multiplied too."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        diagonal = torch.eye(self.num_blocks, device=x.device, dtype=x.dtype)[:, None, :, None, None, None]
        dense = (self.weight[None, :, None] * diagonal).flatten(2, 3).flatten(0, 1)
        return F.conv2d(x, dense, None, self.stride, self.padding)


class MatrixProduct(_Plain):
    """A matrix product, for 1x1: the weight by each block's pixels, or in channels_last each pixel's blocks by the weight."""

    @staticmethod
    def fits(layer: TBC) -> bool:
        """Only for 1x1."""
        return layer.kernel_size == (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) to (N, C_out, H', W')."""
        channels_last, weight = _is_channels_last(x), self.weight.flatten(1)
        if self.stride != (1, 1):
            x = x[:, :, ::self.stride[0], ::self.stride[1]]
        if channels_last:
            pixels = x.permute(0, 2, 3, 1).unflatten(-1, (self.num_blocks, -1))
            return F.linear(pixels, weight).flatten(-2).permute(0, 3, 1, 2)
        blocks = x.unflatten(1, (self.num_blocks, -1)).flatten(3)
        return (weight @ blocks).flatten(1, 2).unflatten(-1, x.shape[2:])


#: The plain ways, by their names in the tables.
PLAIN_WAYS = {'fold into batch': FoldIntoBatch, 'repeated weight': RepeatWeight, 'matrix product': MatrixProduct,
              'dense': DenseWeight}


def all_ways(layer: TBC) -> dict[str, nn.Module]:
    """A TBC without bias, every plain way that can compute it, and the untied grouped convolution.

    Example:
        >>> list(all_ways(TBC(8, 8, 3, bias=False)))
        ['TBC', 'fold into batch', 'repeated weight', 'dense', 'grouped, untied']
    """
    return {OURS: layer, **{name: way(layer) for name, way in PLAIN_WAYS.items() if way.fits(layer)}, UNTIED: untied(layer)}


def untied(layer: TBC) -> nn.Conv2d:
    """The grouped convolution with G = B and weights of its own."""
    return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
                     groups=layer.num_blocks, bias=False)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
