"""TiedSE: squeeze-and-excitation with two tied fully connected layers.

Wang & Yu, "Tied Block Convolution", AAAI 2021, https://arxiv.org/abs/2009.12021, section "TBC and TFC in Attention Modules";
Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, https://arxiv.org/abs/1709.01507.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import build_activation_layer
from mmengine.model import kaiming_init
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtied.arguments import suggest_arguments
from mmtied.layers import TFC
from mmtied.layers.blocks import check_blocks, check_positive


@MODELS.register_module()
@suggest_arguments
class TiedSE(nn.Module):
    """Squeeze-and-excitation: two tied fully connected layers compute a gate for each channel from the channel means.

    With ``num_blocks=1`` this equals mmpretrain's SELayer, which stores the same weights as 1x1 convolutions. B blocks divide
    the number of weights by B * B and the number of biases by B. As a plugin:
    ``dict(cfg=dict(type='TiedSE', num_blocks=2), position='after_conv3')``.

    Args:
        in_channels: Channels of the feature map, divisible by num_blocks.
        ratio: Reduction; the hidden features are in_channels // ratio, rounded to a multiple of `divisor`.
        num_blocks: B of both layers.
        squeeze_channels: Hidden features; None computes them from ratio and divisor.
        divisor: Round the hidden features to the nearest multiple of this, or up if that would remove more than a tenth.
        act_cfg: Activation after each layer.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: like the input.

    Raises:
        ValueError: num_blocks does not divide in_channels or squeeze_channels, or a count is not positive.

    Example:
        >>> import torch
        >>> layer = TiedSE(256, num_blocks=4)
        >>> layer.fc1.weight.shape, layer.fc2.weight.shape
        (torch.Size([4, 64]), torch.Size([64, 4]))
        >>> layer(torch.rand(2, 256, 7, 7)).shape
        torch.Size([2, 256, 7, 7])
    """

    _abbr_ = 'tied_se'

    def __init__(self, in_channels: int, ratio: int = 16, num_blocks: int = 2, squeeze_channels: int | None = None,
                 divisor: int = 8, act_cfg: Sequence[dict] = ({'type': 'ReLU'}, {'type': 'Sigmoid'})) -> None:
        super().__init__()
        check_positive('TiedSE', in_channels=in_channels, ratio=ratio, num_blocks=num_blocks, divisor=divisor)
        if len(act_cfg) != 2:
            raise ValueError(f'TiedSE: act_cfg has {len(act_cfg)} values, expected 2, one for each layer')
        if squeeze_channels is None:
            squeeze_channels = round_channels(in_channels // ratio, divisor)
        check_blocks('TiedSE', 'in_channels', in_channels, num_blocks)
        check_blocks('TiedSE', 'squeeze_channels', squeeze_channels, num_blocks)
        self.fc1 = TFC(in_channels, squeeze_channels, num_blocks=num_blocks)
        self.fc2 = TFC(squeeze_channels, in_channels, num_blocks=num_blocks)
        self.activate, self.gate = (build_activation_layer(cfg) for cfg in act_cfg)
        for layer in (self.fc1, self.fc2):
            kaiming_init(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Gate the channels of x."""
        means = F.adaptive_avg_pool2d(x, 1)[..., 0, 0]
        gates = self.gate(self.fc2(self.activate(self.fc1(means))))
        return x * gates[..., None, None]


def round_channels(channels: int, divisor: int) -> int:
    """Return the nearest positive multiple of `divisor`, or the next one if the nearest is more than a tenth lower.

    Example:
        >>> [round_channels(channels, 8) for channels in (4, 11, 12, 25)]
        [8, 16, 16, 24]
    """
    nearest = max(divisor, (2 * channels + divisor) // (2 * divisor) * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest
