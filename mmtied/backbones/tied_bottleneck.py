"""The bottleneck of tied ResNets: a tied entry, splits with different sharing, a mixer, and a standard exit.

Wang & Yu, "Tied Block Convolution", AAAI 2021, Figure 4 and section "TBC/TGC in Bottleneck Modules". The paper prints no layer
table; this structure was fitted to every parameter and FLOP figure that it prints (Tables 1, 5 and 6).
"""

import torch
import torch.utils.checkpoint as checkpointing
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmtied.layers import TBC

from .block_plugins import BlockPlugins

#: How the mixer joins the splits' outputs before its two 1x1 convolutions (Table 6).
MIXER_FUSIONS = ('sum', 'concat', 'none')


class TiedSplits(BaseModule):
    """Split the channels into equal parts, and give each part a 3x3 tied block convolution with a block number of its own.

    One normalisation spans the joined splits: the same as one for each split where it works by channel, with fewer launches.

    Args:
        width: Channels of one split, w'.
        split_blocks: B of each split.
        stride: Stride of the convolutions.
        dilation: Dilation of the convolutions.
        norm_cfg: Normalisation layer.

    Shape:
        - Input: (N, s * width, H, W), where s is the number of splits.
        - Output: (N, s * width, H / stride, W / stride).
    """

    def __init__(self, width: int, split_blocks: tuple[int, ...], stride: int, dilation: int, norm_cfg: dict) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            TBC(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False, num_blocks=num_blocks)
            for num_blocks in split_blocks)
        _, self.norm = build_norm_layer(norm_cfg, width * len(split_blocks))
        self.activate = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each split and join them again."""
        parts = x.chunk(len(self.convs), dim=1)
        joined = torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)
        return self.activate(self.norm(joined))


class SplitMixer(BaseModule):
    """Carry information across the splits: fuse them, then two 1x1 convolutions.

    Args:
        width: Channels of one split, w'.
        splits: Number of splits.
        out_channels: Channels that the mixer adds to the block.
        fusion: 'sum' adds the splits' outputs, 'concat' takes them side by side.
        conv_cfg: Convolution layer.
        norm_cfg: Normalisation layer.

    Shape:
        - Input: (N, splits * width, H, W).
        - Output: (N, out_channels, H, W).
    """

    def __init__(self, width: int, splits: int, out_channels: int, fusion: str, conv_cfg: dict | None, norm_cfg: dict) -> None:
        super().__init__()
        self.splits = splits
        self.fusion = fusion
        channels = width if fusion == 'sum' else width * splits
        self.mix = ConvModule(channels, channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        self.reduce = ConvModule(channels, out_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the splits of x."""
        if self.fusion == 'sum':
            x = x.unflatten(1, (self.splits, -1)).sum(dim=1)
        return self.reduce(self.mix(x))


class TiedBottleneck(BaseModule):
    """Entry (1x1 TBC), splits (3x3 TBC), mixer (two 1x1), exit (standard 1x1), added to the shortcut.

    Args:
        in_channels: Channels of the input.
        planes: Base channels of the stage (64, 128, 256, 512 in a ResNet); the output has four times as many.
        width: Channels of one split, w'.
        split_blocks: B of each split.
        entry_blocks: B of the entry.
        shortcut_blocks: B of the projection shortcut.
        mixer_fusion: One of `MIXER_FUSIONS`; 'none' leaves the mixer out.
        mixer_out_ratio: Channels of the mixer's output, as a share of planes.
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

    expansion = 4

    def __init__(self,
                 *,
                 in_channels: int,
                 planes: int,
                 width: int,
                 split_blocks: tuple[int, ...],
                 entry_blocks: int,
                 shortcut_blocks: int,
                 mixer_fusion: str,
                 mixer_out_ratio: float,
                 stride: int = 1,
                 dilation: int = 1,
                 style: str = 'pytorch',
                 avg_down: bool = False,
                 plugins: list[dict] = (),
                 with_cp: bool = False,
                 conv_cfg: dict | None = None,
                 norm_cfg: dict) -> None:
        super().__init__()
        self.with_cp = with_cp
        channels = width * len(split_blocks)
        mixed = round(planes * mixer_out_ratio) if mixer_fusion != 'none' else 0
        out_channels = planes * self.expansion
        entry_stride, split_stride = (stride, 1) if style == 'caffe' else (1, stride)

        self.entry = ConvModule(in_channels, channels, 1, entry_stride, conv_cfg=_tied(entry_blocks), norm_cfg=norm_cfg)
        self.splits = TiedSplits(width, split_blocks, split_stride, dilation, norm_cfg)
        self.mixer = SplitMixer(width, len(split_blocks), mixed, mixer_fusion, conv_cfg, norm_cfg) if mixed else None
        self.exit = ConvModule(channels + mixed, out_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=None)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = _projection(in_channels, out_channels, stride, shortcut_blocks, avg_down, norm_cfg)
        self.activate = nn.ReLU(inplace=True)

        self.plugins = BlockPlugins(plugins, after_conv1=channels, after_conv2=channels + mixed, after_conv3=out_channels)

    @property
    def last_norm(self) -> nn.Module:
        """The normalisation before the addition, which `zero_init_residual` sets to zero."""
        return self.exit.norm

    def forward(self, x: Tensor) -> Tensor:
        """Run the block, with activations recomputed in the backward pass if `with_cp`."""
        if self.with_cp and x.requires_grad:
            residual = checkpointing.checkpoint(self._residual, x, use_reentrant=False)
        else:
            residual = self._residual(x)
        return self.activate(residual)

    def _residual(self, x: Tensor) -> Tensor:
        out = self.plugins('after_conv1', self.entry(x))
        out = self.splits(out)
        if self.mixer is not None:
            out = torch.cat([out, self.mixer(out)], dim=1)
        out = self.plugins('after_conv2', out)
        out = self.plugins('after_conv3', self.exit(out))
        return out + (x if self.shortcut is None else self.shortcut(x))


def _tied(num_blocks: int) -> dict:
    return {'type': 'TBC', 'num_blocks': num_blocks}


def _projection(in_channels: int, out_channels: int, stride: int, num_blocks: int, avg_down: bool, norm_cfg: dict) -> nn.Module:
    """The shortcut of the first block of a stage."""
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if avg_down and stride != 1 else None
    project = ConvModule(in_channels, out_channels, 1, stride if pool is None else 1, conv_cfg=_tied(num_blocks),
                         norm_cfg=norm_cfg, act_cfg=None)
    return project if pool is None else nn.Sequential(pool, project)
