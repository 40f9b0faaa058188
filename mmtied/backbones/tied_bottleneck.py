"""The bottleneck of tied ResNets: a tied entry, splits with different sharing, a mixer, and a standard exit.

Wang & Yu, "Tied Block Convolution", AAAI 2021, Figure 4 and section "TBC/TGC in Bottleneck Modules". The paper prints no layer
table; this structure was fitted to every parameter and FLOP figure that it prints (Tables 1, 5 and 6).
"""

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmtied.layers import TBC, TGC
from mmtied.layers.tied_ways import block_diagonal
from mmtied.native.thin_convolution import convolve_splits, convolve_splits_scaled

from .bottleneck import Bottleneck, block_strides, build_shortcut, tied
from .fast_norm import can_follow
from .folded_norm import (
    ConvNorm,
    can_fold,
    convolve_scaled,
    runs_eagerly_on_cpu,
    scale_and_shift,
    scale_filters,
)
from .recomputed import join, normalise
from .thin_splits import find_thin_splits
from .watched import is_watched

#: How the mixer joins the splits' outputs: before two 1x1 convolutions that feed the exit (Table 6), or before one whose output
#: is added back to every split.
MIXER_FUSIONS = ('sum', 'concat', 'none', 'add_back')
#: Splits of at most so many channels are faster together, with zeros between their blocks, than cut out and put back (measured).
JOINED_WIDTH = 40


class TiedSplits(BaseModule):
    """Split the channels into equal parts, and give each part a 3x3 tied block convolution with a block number of its own.

    With groups, each part's convolution is a tied block group convolution.

    One normalisation spans the joined splits: the same as one for each split where it works by channel, with fewer launches.

    Args:
        width: Channels of one split, w'.
        split_blocks: B of each split.
        groups: G of every split.
        stride: Stride of the convolutions.
        dilation: Dilation of the convolutions.
        norm_cfg: Normalisation layer.

    Shape:
        - Input: (N, s * width, H, W), where s is the number of splits.
        - Output: (N, s * width, H / stride, W / stride).
    """

    def __init__(self, width: int, split_blocks: tuple[int, ...], groups: int, stride: int, dilation: int,
                 norm_cfg: dict) -> None:
        super().__init__()
        layer = TBC if groups == 1 else TGC
        self.convs = nn.ModuleList(
            layer(width, width, 3, stride, padding=dilation, dilation=dilation, groups=groups, bias=False,
                  num_blocks=num_blocks) for num_blocks in split_blocks)
        _, self.norm = build_norm_layer(norm_cfg, width * len(split_blocks))
        self.activate = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each split and join them again."""
        eager = runs_eagerly_on_cpu(x)
        thin = find_thin_splits(x, self.convs) if eager else None
        if eager and self._can_fold():
            if thin and can_follow(self.activate):
                return convolve_splits_scaled(x, *thin, *scale_and_shift(self.norm), relu=True)
            return self.activate(self._convolve_folded(x))
        if thin:
            return normalise(self.norm, self.activate, convolve_splits(x, *thin))
        parts = x.chunk(len(self.convs), dim=1)
        joined = torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)
        return normalise(self.norm, self.activate, joined)

    def _can_fold(self) -> bool:
        tied = all(isinstance(conv, (TBC, TGC)) and conv.bias is None for conv in self.convs)
        return tied and all(can_fold(conv, self.norm) for conv in self.convs)

    def _convolve_folded(self, x: Tensor) -> Tensor:
        """The splits with the normalisation folded in: thin ones as the groups of one convolution, others one by one."""
        scale, shift = scale_and_shift(self.norm)
        splits, first = len(self.convs), self.convs[0]
        if x.size(1) <= splits * JOINED_WIDTH:
            weight = scale_filters(torch.cat([block_diagonal(conv.weight, conv.geometry) for conv in self.convs]), scale)
            return F.conv2d(x, weight, shift.to(weight.dtype), first.stride, first.padding, first.dilation,
                            splits * first.groups)
        return torch.cat([convolve_scaled(*split) for split in zip(x.chunk(splits, dim=1), self.convs, scale.chunk(splits),
                                                                   shift.chunk(splits), strict=True)], dim=1)


def separate(x: Tensor, splits: int) -> Tensor:
    """(N, splits * C, H, W) as (N, splits, C, H, W); N is -1 here, as an exporter would fix an example's batch of one."""
    return x.reshape(-1, splits, x.size(1) // splits, *x.shape[2:])


class SplitMixer(BaseModule):
    """Carry information across the splits: fuse them, then two 1x1 convolutions, whose output stands beside the splits.

    Args:
        width: Channels of one split, w'.
        splits: Number of splits.
        out_channels: Channels that the mixer adds to the block.
        fusion: 'sum' adds the splits' outputs, 'concat' takes them side by side.
        conv_cfg: Convolution layer.
        norm_cfg: Normalisation layer.

    Shape:
        - Input: (N, splits * width, H, W).
        - Output: (N, splits * width + out_channels, H, W).
    """

    def __init__(self, width: int, splits: int, out_channels: int, fusion: str, conv_cfg: dict | None, norm_cfg: dict) -> None:
        super().__init__()
        self.splits = splits
        self.fusion = fusion
        channels = width if fusion == 'sum' else width * splits
        self.mix = ConvNorm(channels, channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        self.reduce = ConvNorm(channels, out_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Append the mix of the splits of x to x."""
        if self.fusion == 'concat':
            mixed = self.mix(x)
        elif self._can_repeat(x):
            mixed = self._mix_repeated(x)
        else:
            mixed = self.mix(separate(x, self.splits).sum(dim=1))
        return join([x, self.reduce(mixed)])

    def _can_repeat(self, x: Tensor) -> bool:
        """Whether `_mix_repeated` may stand in for sum and mix: in channels_last, where no hook waits for a call."""
        conv = self.mix.conv
        return (runs_eagerly_on_cpu(x) and x.stride(1) == 1 and type(conv) is nn.Conv2d and conv.bias is None
                and self.mix.norm is not None and not is_watched(self.mix) and not is_watched(conv))

    def _mix_repeated(self, x: Tensor) -> Tensor:
        """The sum of the splits and the mix of it as one convolution, whose filters are repeated for each split.

        A sum over parts of the channels is slow in channels_last, where the parts of a pixel lie side by side.
        """
        weight, norm = self.mix.conv.weight, self.mix.norm
        if not can_fold(self.mix.conv, norm):
            return normalise(norm, self.mix.activate, F.conv2d(x, weight.repeat(1, self.splits, 1, 1)))
        scale, shift = scale_and_shift(norm)
        weight = scale_filters(weight, scale)
        return self.mix.activate(F.conv2d(x, weight.repeat(1, self.splits, 1, 1), shift.to(weight.dtype)))


class AddBackMixer(BaseModule):
    """Carry information across the splits: sum them, one 1x1 convolution, and add the result to each split.

    Args:
        width: Channels of one split, w'.
        splits: Number of splits.
        conv_cfg: Convolution layer.
        norm_cfg: Normalisation layer.

    Shape:
        - Input: (N, splits * width, H, W).
        - Output: as the input.
    """

    def __init__(self, width: int, splits: int, conv_cfg: dict | None, norm_cfg: dict) -> None:
        super().__init__()
        self.splits = splits
        self.mix = ConvNorm(width, width, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Add the mix of the splits of x to each of them."""
        parts = separate(x, self.splits)
        return (parts + self.mix(parts.sum(dim=1)).unsqueeze(1)).reshape(-1, *x.shape[1:])


class TiedBottleneck(Bottleneck):
    """Entry (1x1 TBC), splits (3x3 TBC), mixer (two 1x1), exit (standard 1x1), added to the shortcut.

    Args:
        in_channels: Channels of the input.
        planes: Base channels of the stage (64, 128, 256, 512 in a ResNet); the output has four times as many.
        width: Channels of one split, w'.
        split_blocks: B of each split.
        entry_blocks: B of the entry.
        shortcut_blocks: B of the projection shortcut.
        split_groups: G of every split.
        mixer_fusion: One of `MIXER_FUSIONS`; 'none' leaves the mixer out.
        mixer_out_ratio: Channels that a 'sum' or 'concat' mixer appends, as a share of planes.
        attention: Config of an attention layer at the end of the residual, or None.
        stride: Stride of the block.
        dilation: Dilation of the splits.
        style: 'pytorch' puts the stride into the splits, 'caffe' into the entry.
        avg_down: Whether an average pooling takes the shortcut's stride.
        plugins: Plugins of this block, each dict(cfg=..., position=...).
        with_cp: Whether to recompute activations in the backward pass to save memory.
        conv_cfg: Convolution layer of the standard convolutions (mixer and exit).
        norm_cfg: Normalisation layer.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: (N, 4 * planes, H / stride, W / stride).
    """

    def __init__(self,
                 *,
                 in_channels: int,
                 planes: int,
                 width: int,
                 split_blocks: tuple[int, ...],
                 entry_blocks: int,
                 shortcut_blocks: int,
                 split_groups: int = 1,
                 mixer_fusion: str,
                 mixer_out_ratio: float,
                 attention: dict | None = None,
                 stride: int = 1,
                 dilation: int = 1,
                 style: str = 'pytorch',
                 avg_down: bool = False,
                 plugins: list[dict] = (),
                 with_cp: bool = False,
                 conv_cfg: dict | None = None,
                 norm_cfg: dict) -> None:
        super().__init__(with_cp)
        splits = len(split_blocks)
        channels = width * splits
        mixed = round(planes * mixer_out_ratio) if mixer_fusion in ('sum', 'concat') else 0
        out_channels = planes * self.expansion
        entry_stride, split_stride = block_strides(stride, style)

        self.entry = ConvNorm(in_channels, channels, 1, entry_stride, conv_cfg=tied(entry_blocks), norm_cfg=norm_cfg)
        self.splits = TiedSplits(width, split_blocks, split_groups, split_stride, dilation, norm_cfg)
        self.mixer = None
        if mixed:
            self.mixer = SplitMixer(width, splits, mixed, mixer_fusion, conv_cfg, norm_cfg)
        elif mixer_fusion == 'add_back':
            self.mixer = AddBackMixer(width, splits, conv_cfg, norm_cfg)
        self.exit = ConvNorm(channels + mixed, out_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=None)
        self.shortcut = build_shortcut(in_channels, out_channels, stride, shortcut_blocks, avg_down, norm_cfg)
        self.add_layers(attention, plugins, after_conv1=channels, after_conv2=channels + mixed, after_conv3=out_channels)

    def middle(self, x: Tensor) -> Tensor:
        """Splits, then the mixer."""
        x = self.splits(x)
        return x if self.mixer is None else self.mixer(x)
