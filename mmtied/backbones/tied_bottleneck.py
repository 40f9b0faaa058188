"""The bottleneck of tied ResNets: a tied entry, splits that share filters to different degrees, a mixer, and a standard exit.

Wang & Yu, "Tied Block Convolution", AAAI 2021, Figure 4 and section "TBC/TGC in Bottleneck Modules". The paper prints no layer
table; this structure was fitted to every parameter and FLOP figure that it prints (Tables 1, 5 and 6).
"""

from functools import reduce

import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmtied.layers import TBC, TGC

from .bottleneck import BlockSettings, Bottleneck, tied

#: Mixer types: 'sum' and 'concat' join the splits before two 1x1 convolutions that feed the exit (Table 6); 'add_back' sums them
#: before one 1x1 convolution whose output is added to every split.
MIXER_FUSIONS = ('sum', 'concat', 'none', 'add_back')


class TiedSplits(BaseModule):
    """Split the channels into equal parts, and give each part a 3x3 TBC (or TGC) with a block number of its own.

    One normalization spans the joined splits, which equals one for each split where it works by channel.

    Args:
        width: Channels of one split, w'.
        split_blocks: B of each split.
        groups: G of every split.
        stride: Stride of the convolutions.
        dilation: Dilation of the convolutions.
        norm_cfg: Normalization layer.

    Shape:
        - Input: (N, s * width, H, W), where s is the number of splits.
        - Output: (N, s * width, H / stride, W / stride).
    """

    def __init__(self, width: int, split_blocks: tuple[int, ...], groups: int, stride: int, dilation: int,
                 norm_cfg: dict) -> None:
        super().__init__()
        layer = TBC if groups == 1 else TGC
        self.splits = len(split_blocks)
        self.convs = nn.ModuleList(
            layer(width, width, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False,
                  num_blocks=num_blocks) for num_blocks in split_blocks)
        _, self.norm = build_norm_layer(norm_cfg, width * len(split_blocks))
        self.activate = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each split and join the results."""
        parts = x.chunk(self.splits, dim=1)  # indexed, because torch.fx cannot iterate over a proxy
        joined = torch.cat([self.convs[index](parts[index]) for index in range(self.splits)], dim=1)
        return self.activate(self.norm(joined))


class SplitMixer(BaseModule):
    """Exchange information between the splits: fuse them, and append the output of two 1x1 convolutions to them.

    Args:
        width: Channels of one split, w'.
        splits: Number of splits.
        out_channels: Channels that the mixer appends.
        fusion: 'sum' adds the splits, 'concat' takes them side by side.
        conv_cfg: Convolution layer.
        norm_cfg: Normalization layer.

    Shape:
        - Input: (N, splits * width, H, W).
        - Output: (N, splits * width + out_channels, H, W).
    """

    def __init__(self, width: int, splits: int, out_channels: int, fusion: str, conv_cfg: dict | None, norm_cfg: dict) -> None:
        super().__init__()
        self.splits = splits
        self.fusion = fusion
        channels = width if fusion == 'sum' else width * splits
        self.mix = ConvModule(channels, channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        self.reduce = ConvModule(channels, out_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Append the mix of the splits of x to x."""
        fused = add_splits(x, self.splits) if self.fusion == 'sum' else x
        return torch.cat([x, self.reduce(self.mix(fused))], dim=1)


class AddBackMixer(BaseModule):
    """Exchange information between the splits: sum them, convolve by 1x1, and add the result to each split."""

    def __init__(self, width: int, splits: int, conv_cfg: dict | None, norm_cfg: dict) -> None:
        super().__init__()
        self.splits = splits
        self.mix = ConvModule(width, width, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Add the mix of the splits of x to each of them."""
        mixed = self.mix(add_splits(x, self.splits))
        return x + torch.cat([mixed] * self.splits, dim=1)


def add_splits(x: Tensor, splits: int) -> Tensor:
    """Add equal parts of the channels; unlike the sum of a reshaped tensor this keeps channels_last."""
    parts = x.chunk(splits, dim=1)  # indexed, because torch.fx cannot iterate over a proxy
    return reduce(torch.add, [parts[index] for index in range(splits)])


class TiedBottleneck(Bottleneck):
    """Entry (1x1 TBC), splits (3x3 TBC), mixer (two 1x1), and exit (standard 1x1), added to the shortcut.

    Args:
        block: Settings that every kind of block has; its conv_cfg is for mixer and exit.
        width: Channels of one split, w'.
        split_blocks: B of each split.
        entry_blocks: B of the entry.
        shortcut_blocks: B of the projection shortcut.
        split_groups: G of every split.
        mixer_fusion: One of `MIXER_FUSIONS`; 'none' omits the mixer.
        mixer_out_ratio: Channels that a 'sum' or 'concat' mixer appends, as a share of planes.
        attention: Config of an attention layer at the end of the residual branch, or None.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: (N, 4 * planes, H / stride, W / stride).
    """

    def __init__(self, block: BlockSettings, *, width: int, split_blocks: tuple[int, ...], entry_blocks: int,
                 shortcut_blocks: int, split_groups: int = 1, mixer_fusion: str, mixer_out_ratio: float,
                 attention: dict | None = None) -> None:
        super().__init__(block.with_cp)
        conv_cfg, norm_cfg = block.conv_cfg, block.norm_cfg
        splits = len(split_blocks)
        channels = width * splits
        mixed = round(block.planes * mixer_out_ratio) if mixer_fusion in ('sum', 'concat') else 0
        out_channels = block.planes * self.expansion
        entry_stride, split_stride = block.strides

        self.entry = ConvModule(block.in_channels, channels, 1, entry_stride, conv_cfg=tied(entry_blocks), norm_cfg=norm_cfg)
        self.splits = TiedSplits(width, split_blocks, split_groups, split_stride, block.dilation, norm_cfg)
        self.mixer = nn.Identity()
        if mixed:
            self.mixer = SplitMixer(width, splits, mixed, mixer_fusion, conv_cfg, norm_cfg)
        elif mixer_fusion == 'add_back':
            self.mixer = AddBackMixer(width, splits, conv_cfg, norm_cfg)
        self.exit = ConvModule(channels + mixed, out_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=None)
        self.shortcut = block.shortcut(out_channels, shortcut_blocks)
        self.add_layers(attention, block.plugins, after_conv1=channels, after_conv2=channels + mixed, after_conv3=out_channels)

    def middle(self, x: Tensor) -> Tensor:
        """Compute the splits and mix them."""
        return self.mixer(self.splits(x))
