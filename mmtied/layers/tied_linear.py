"""Tied block fully connected layer: one thin weight shared by B equal blocks of features.

Wang & Yu, "Tied Block Convolution", AAAI 2021, https://arxiv.org/abs/2009.12021, section "Tied Block Fully Connected Layer".
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtied.arguments import suggest_arguments

from .blocks import BlockMetadata, check_blocks, check_positive, check_tensor


@suggest_arguments
class TFC(BlockMetadata, nn.Linear):
    """Tied block fully connected layer: the same weight maps each of B blocks of input features to one block of output features.

    The weight has shape (out / B, in / B): B * B times fewer parameters than `torch.nn.Linear`. A bias is tied too and has
    out / B values. With ``num_blocks=1`` this is exactly `torch.nn.Linear`.

    Args:
        in_features, out_features: Divisible by num_blocks.
        bias: Add a (tied) bias.
        num_blocks: B.
        device, dtype: Of the parameters.

    Shape:
        - Input: (..., in_features); leading dimensions may be 0.
        - Output: (..., out_features).

    Raises:
        ValueError: num_blocks does not divide the features, or an input has the wrong number of features.

    Example:
        >>> layer = TFC(64, 16, num_blocks=4)
        >>> layer.weight.shape
        torch.Size([4, 16])
        >>> layer(torch.rand(2, 64)).shape
        torch.Size([2, 16])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, num_blocks: int = 2,
                 device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        check_positive('TFC', num_blocks=num_blocks)
        check_blocks('TFC', 'in_features', in_features, num_blocks)
        check_blocks('TFC', 'out_features', out_features, num_blocks)
        super().__init__(in_features // num_blocks, out_features // num_blocks, bias, device, dtype)
        self.in_features = in_features
        self.out_features = out_features
        self.num_blocks = num_blocks

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        check_tensor('TFC', x)
        if x.dim() == 0 or x.size(-1) != self.in_features:
            raise ValueError(f'TFC: expected input of shape (..., {self.in_features}), got {tuple(x.shape)}')
        blocks = x.reshape(-1, self.in_features // self.num_blocks)
        out = F.linear(blocks, self.weight, self.bias).reshape(-1, self.out_features)
        # (N, in_features) needs no second reshape, whose N an exporter would fix to that of its example.
        return out if x.dim() == 2 else out.reshape(*x.shape[:-1], self.out_features)

    def __prepare_scriptable__(self) -> nn.Module:
        """Return plain modules with this layer's parameters, which `torch.jit.script` compiles."""
        layer = nn.Linear(1, 1, device=self.weight.device, dtype=self.weight.dtype)
        layer.weight, layer.bias = self.weight, self.bias
        layer.out_features, layer.in_features = self.weight.shape
        return nn.Sequential(nn.Unflatten(-1, (self.num_blocks, self.weight.size(1))), layer, nn.Flatten(-2))

    def extra_repr(self) -> str:
        """Append num_blocks to Linear's description."""
        return f'{super().extra_repr()}, num_blocks={self.num_blocks}'
