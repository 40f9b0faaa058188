"""TiedGCB: the global context block with tied 1x1 convolutions.

Wang & Yu, "Tied Block Convolution", AAAI 2021, https://arxiv.org/abs/2009.12021, section "TBC and TFC in Attention Modules";
Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", https://arxiv.org/abs/1904.11492.
"""

import math
from collections.abc import Sequence
from functools import partial

from mmcv.cnn.bricks import ContextBlock
from mmengine.registry import MODELS

from mmtied.arguments import suggest_arguments
from mmtied.layers import TBC, TGC
from mmtied.layers.blocks import check_blocks, check_positive

POOLING_TYPES = ('att', 'avg')
FUSION_TYPES = ('channel_add', 'channel_mul')


@MODELS.register_module()
@suggest_arguments
class TiedGCB(ContextBlock):
    """mmcv's ContextBlock with the two 1x1 convolutions of each fusion tied, grouped, or both.

    With ``num_blocks=1`` this equals ContextBlock, including its weights. As a plugin:
    ``dict(cfg=dict(type='TiedGCB', ratio=1 / 4, num_blocks=2), stages=(False, True, True, True), position='after_conv3')``.
    ``num_blocks=1, groups=2`` is the GCB with group convolution that the paper compares with (Table 4).

    Args:
        in_channels: Channels of the feature map, divisible by num_blocks * groups.
        ratio: Hidden channels as a share of in_channels.
        num_blocks: B of both convolutions.
        pooling_type: Pooling of the context: 'att' (a learned attention map) or 'avg'.
        fusion_types: Fusions of context and input: 'channel_add', 'channel_mul', or both.
        groups: G of both convolutions; above 1 each is a `TGC` (with ``num_blocks=1`` a group convolution).

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: like the input.

    Raises:
        ValueError: num_blocks * groups does not divide the channels, or a pooling or fusion type is unknown.

    Example:
        >>> layer = TiedGCB(256, num_blocks=4)
        >>> layer.channel_add_conv[0].weight.shape
        torch.Size([16, 64, 1, 1])
    """

    _abbr_ = 'tied_gcb'

    def __init__(self, in_channels: int, ratio: float = 1 / 4, num_blocks: int = 2, pooling_type: str = 'att',
                 fusion_types: Sequence[str] = ('channel_add', ), groups: int = 1) -> None:
        check_positive('TiedGCB', in_channels=in_channels, num_blocks=num_blocks, groups=groups)
        hidden = int(in_channels * ratio)
        check_blocks('TiedGCB', 'in_channels', in_channels, num_blocks, groups)
        if hidden < 1:
            raise ValueError(f'TiedGCB: ratio={ratio} of in_channels={in_channels} leaves no channels, expected at least '
                             f'{math.ceil(10000 * num_blocks * groups / in_channels) / 10000:g}')
        check_blocks(f'TiedGCB with ratio={ratio:g} of in_channels={in_channels}', 'bottleneck_channels', hidden, num_blocks,
                     groups)
        if pooling_type not in POOLING_TYPES:
            raise ValueError(f'TiedGCB: pooling_type={pooling_type!r}, expected one of {", ".join(POOLING_TYPES)}')
        if isinstance(fusion_types, str) or not fusion_types or not set(fusion_types) <= set(FUSION_TYPES):
            raise ValueError(f'TiedGCB: fusion_types={fusion_types!r}, expected one or both of {", ".join(FUSION_TYPES)}')
        super().__init__(in_channels, ratio, pooling_type, tuple(fusion_types))
        tied = TBC if groups == 1 else partial(TGC, groups=groups)
        for fusion in (self.channel_add_conv, self.channel_mul_conv):
            if fusion is not None:
                fusion[0] = tied(in_channels, hidden, 1, num_blocks=num_blocks)
                fusion[3] = tied(hidden, in_channels, 1, num_blocks=num_blocks)
        self.reset_parameters()

    def init_weights(self) -> None:
        """Restore GCNet's identity initialization after a backbone has initialized all layers."""
        self.reset_parameters()
