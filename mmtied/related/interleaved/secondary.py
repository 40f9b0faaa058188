"""The secondary convolution of an interleaved group convolution.

A 1x1 one, with the permutations before and after it, is computed in one of three ways. In contiguous NCHW it is one batched
matrix product, L x L by L x (N H W) for each of the M partitions. In channels_last, if a dense 1x1 convolution is cheap, the
small weight is permuted and padded with zeros, and no channel moves. Otherwise channels are shuffled before and after a grouped
convolution, as they always are for larger kernels. ONNX export shuffles too, because the other ways would fix the batch size of
the example.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Multiply-adds with zeros per output value up to which the dense 1x1 convolution beats shuffling in channels_last; fewer for
#: two-byte values, which move in half the time (measured with benchmarks/related_layers.py).
CHEAP_ZEROS, _CHEAP_ZEROS_OF_TWO_BYTES = 128, 64


class Secondary(nn.Conv2d):
    """The secondary convolution with the permutations before and after it, P W_s P' (Eq. 3 and 4).

    A convolution of M groups, usually 1x1, with C channels as input and output, whose weight and bias are by secondary partition;
    input and output are by primary partition.

    Shape:
        - Input: (N, C, H, W), any memory format.
        - Output: (N, C, H', W').
    """

    @property
    def num_primary(self) -> int:
        """Number of primary partitions, L."""
        return self.out_channels // self.groups

    def matrices(self) -> Tensor:
        """Return W_s of each secondary partition of a 1x1 convolution, shape (M, L, L)."""
        return self.weight.view(self.groups, self.num_primary, self.num_primary)

    def permuted_weight(self) -> Tensor:
        """Return P W_s P' as a dense 1x1 convolution, shape (C, C, 1, 1)."""
        blocks = torch.diag_embed(self.matrices().permute(1, 2, 0))  # (L, L, M, M)
        return blocks.transpose(1, 2).reshape(self.out_channels, self.out_channels, 1, 1)

    def permuted_bias(self) -> Tensor | None:
        """Return the bias in the order of the outputs, shape (C,), or None."""
        return None if self.bias is None else self.bias.view(self.groups, self.num_primary).T.flatten()

    def forward(self, x: Tensor) -> Tensor:
        """Permute, convolve, and permute back."""
        if torch.onnx.is_in_onnx_export() or self.kernel_size != (1, 1):
            return _shuffle(super().forward(_shuffle(x, self.num_primary)), self.groups)
        if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return self._multiply(x)
        cheap = _CHEAP_ZEROS_OF_TWO_BYTES if x.element_size() == 2 else CHEAP_ZEROS
        if self.num_primary * (self.groups - 1) <= cheap:
            return F.conv2d(x, self.permuted_weight(), self.permuted_bias())
        return _shuffle(super().forward(_shuffle(x, self.num_primary)), self.groups)

    def _multiply(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = x.reshape(-1, self.num_primary, self.groups, height * width).permute(2, 1, 0, 3)  # (M, L, N, H W)
        x = torch.bmm(self.matrices(), x.flatten(2)).unflatten(2, (-1, height * width))
        if self.bias is not None:
            x = x + self.bias.view(self.groups, self.num_primary, 1, 1).to(x.dtype)
        return x.permute(2, 1, 0, 3).reshape(-1, self.out_channels, height, width)


def _shuffle(x: Tensor, groups: int) -> Tensor:
    """Return F.channel_shuffle in channels_last; torch 2.1 cannot differentiate that, nor the older ONNX exporter write it."""
    channels, height, width = x.shape[1:]
    x = x.permute(0, 2, 3, 1).reshape(-1, height, width, groups, channels // groups).transpose(3, 4)
    return x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)  # -1: the batch size stays open in an exported graph
