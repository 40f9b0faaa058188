"""TiedResNet, TiedResNeXt and TiedSENet, their bottleneck, and TiedSEResNet, in which only the attention is tied.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021,
https://arxiv.org/abs/2009.12021, Figure 4 and section "TBC/TGC in Bottleneck Modules". The paper prints no layer table; the
structure was fitted to every parameter and FLOP figure that it prints (Tables 1, 5 and 6). For TiedResNeXt it names the settings
4s64w and 4s36w (S) but prints neither groups nor block numbers.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtied.layers import TBC, TGC
from mmtied.layers.blocks import check_blocks, check_positive, check_sequence, divisors
from mmtied.plugins import TiedSE

from .bottleneck import BlockSettings, Bottleneck, check_registered, scale_width, tied
from .resnet_base import StagedResNet

#: B of each split, by number of splits; the paper prints 4 splits, the others are fitted to Table 5.
SPLIT_SCHEDULES = {2: (1, 2), 4: (1, 2, 4, 8), 6: (1, 1, 2, 4, 8, 8), 8: (1, 1, 1, 1, 2, 2, 4, 8)}
#: (splits, base_width) that depart from the schedule: the S networks, fitted to both of their printed sizes.
SPLIT_PRESETS = {(4, 18): (1, 2, 2, 3)}
#: Groups of each TiedResNeXt split, by base_width: groups of 8 channels (ResNeXt-101-32x8d has 4 x 8 of them) or of 9.
SPLIT_GROUPS = {64: 8, 72: 8, 36: 4}
#: Mixers: 'sum' and 'concat' fuse the splits before two 1x1 convolutions that feed the exit (Table 6); 'add_back' sums the splits
#: and adds the output of one 1x1 convolution to each of them.
MIXER_FUSIONS = ('sum', 'concat', 'none', 'add_back')


class TiedSplits(BaseModule):
    """Split the channels into equal parts and convolve each by a 3x3 TBC (or TGC) with its own B.

    One normalization spans the joined splits; a per-channel one such as BatchNorm equals one for each split.

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
        parts = x.chunk(self.splits, dim=1)  # indexed below: torch.fx cannot iterate over a proxy
        joined = torch.cat([conv(parts[i]) for i, conv in enumerate(self.convs)], dim=1)
        return self.activate(self.norm(joined))


class SplitMixer(BaseModule):
    """Exchange information between the splits: fuse them, apply two 1x1 convolutions, and append the result.

    Args:
        width: Channels of one split, w'.
        splits: Number of splits.
        out_channels: Channels that the mixer appends.
        fusion: 'sum' adds the splits, 'concat' keeps them side by side.
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
    """Exchange information between the splits: sum them, apply a 1x1 convolution, and add the result to each split."""

    def __init__(self, width: int, splits: int, conv_cfg: dict | None, norm_cfg: dict) -> None:
        super().__init__()
        self.splits = splits
        self.mix = ConvModule(width, width, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Add the mix of the splits of x to each of them."""
        mixed = self.mix(add_splits(x, self.splits))
        return x + torch.cat([mixed] * self.splits, dim=1)


class TiedBottleneck(Bottleneck):
    """Entry (1x1 TBC), splits (3x3 TBC), mixer (two 1x1), and exit (standard 1x1), added to the shortcut.

    Args:
        block: Settings common to all blocks; its conv_cfg is for mixer and exit.
        width: Channels of one split, w'.
        split_blocks: B of each split.
        entry_blocks: B of the entry.
        shortcut_blocks: B of the projection shortcut.
        split_groups: G of every split.
        mixer_fusion: One of `MIXER_FUSIONS`; 'none' omits the mixer.
        mixer_out_ratio: Channels that a 'sum' or 'concat' mixer appends, as a fraction of planes.
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


@MODELS.register_module()
class TiedResNet(StagedResNet):
    """TiedResNet-50 and -101 (4 splits of width 32), their S variants (``base_width=18``), and the paper's ablations.

    Args:
        depth: 50, 101 or 152.
        splits: Number of splits of the 3x3 convolution, s.
        base_width: Channels of one split in the first stage when base_channels is 64, w.
        split_blocks: B of each split. None is the paper's schedule for (splits, base_width), with each B lowered to a divisor of
            base_width.
        entry_blocks: B of the first 1x1 convolution.
        shortcut_blocks: B of the projection shortcuts.
        split_groups: G of every split; above 1 the splits are tied block group convolutions.
        mixer_fusion: 'sum', 'concat' or 'none' (Table 6), or 'add_back' (see `TiedResNeXt`).
        mixer_out_ratio: Channels that a 'sum' or 'concat' mixer appends, as a fraction of the stage's base channels.
        attention: Config of an attention layer at the end of each residual branch, like a plugin's cfg. Unlike a plugin it is
            part of the network: checkpoints must contain its weights.
        memory_format: As in `StagedResNet`; the default was the fastest on CPUs.
        **staged: Other arguments of `StagedResNet`, named as in mmdet's ResNet.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: a tuple of (N, 256 * 2**i, H / 2**(i + 2), W / 2**(i + 2)) for each i in out_indices.

    Raises:
        ValueError: A setting is invalid; the message suggests a valid one.

    Example:
        >>> import torch
        >>> model = TiedResNet(depth=50, base_width=18)  # TiedResNet-50-S
        >>> sum(p.numel() for p in model.parameters()) + 2048 * 1000 + 1000  # with an ImageNet head: 13.92M
        13921358
        >>> [tuple(level.shape) for level in model(torch.rand(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(self, depth: int = 50, *, splits: int = 4, base_width: int = 32, split_blocks: Sequence[int] | None = None,
                 entry_blocks: int = 2, shortcut_blocks: int = 2, split_groups: int = 1, mixer_fusion: str = 'sum',
                 mixer_out_ratio: float = 0.5, attention: dict | None = None, memory_format: str | None = 'channels_last',
                 **staged) -> None:
        name = type(self).__name__
        check_positive(name, splits=splits, base_width=base_width, entry_blocks=entry_blocks, shortcut_blocks=shortcut_blocks,
                       split_groups=split_groups)
        if mixer_fusion not in MIXER_FUSIONS:
            raise ValueError(f'{name}: mixer_fusion={mixer_fusion!r}, expected one of {", ".join(MIXER_FUSIONS)}')
        if not isinstance(mixer_out_ratio, (int, float)) or mixer_out_ratio <= 0:
            raise ValueError(f"{name}: mixer_out_ratio={mixer_out_ratio!r}, expected a number above 0; use mixer_fusion='none' "
                             'to omit the mixer')
        if attention is not None and not (isinstance(attention, dict) and 'type' in attention):
            raise ValueError(f"{name}: attention={attention!r} must be dict(type=..., ...), for example dict(type='TiedSE')")
        if attention is not None:
            check_registered(name, 'attention', attention)
        self._own_settings = {
            'split_blocks': choose_split_blocks(splits, base_width, split_blocks, split_groups, name),
            'entry_blocks': entry_blocks,
            'shortcut_blocks': shortcut_blocks,
            'split_groups': split_groups,
            'mixer_fusion': mixer_fusion,
            'mixer_out_ratio': mixer_out_ratio,
            'attention': attention,
        }
        self._base_width = base_width
        super().__init__(depth, memory_format=memory_format, **staged)

    def make_block(self, block: BlockSettings) -> TiedBottleneck:
        """Build one tied bottleneck."""
        planes, own = block.planes, self._own_settings
        width = scale_width(type(self).__name__, self._base_width, planes)
        if own['mixer_fusion'] in ('sum', 'concat') and round(planes * own['mixer_out_ratio']) < 1:
            raise ValueError(f"{type(self).__name__}: mixer_out_ratio={own['mixer_out_ratio']} of {planes} base channels "
                             f"leaves no channels, expected at least {1 / planes:g}")
        return TiedBottleneck(block, width=width, **own)


@MODELS.register_module()
class TiedResNeXt(TiedResNet):
    """TiedResNeXt-50 and -101 (4 splits of width 64), and -S (``base_width=36``).

    The paper's only row, TiedResNeXt-101-S at 64.0M and 14.6G, contradicts itself. The nearest network that we found is
    ``TiedResNeXt(101, base_width=72)``: 66.1M and 14.2G, with 8 groups in each split, B = (1, 1, 3, 3), and a mixer of one 1x1
    convolution added back to the splits. The other widths follow it, with TiedResNet's block numbers if these fit.

    Args:
        depth: 50, 101 or 152.
        base_width: Channels of one split in the first stage when base_channels is 64.
        split_groups: G of every split; None is the preset for base_width (8 for 64 and 72, 4 for 36).
        mixer_fusion: As in `TiedResNet`.
        **tied: Other arguments of `TiedResNet`.

    Raises:
        ValueError: A setting is invalid; the message suggests a valid one.

    Example:
        >>> model = TiedResNeXt(depth=101, base_width=72)  # nearest to TiedResNeXt-101-S
        >>> round((sum(p.numel() for p in model.parameters()) + 2049000) / 1e6, 1)  # with an ImageNet head
        66.1
    """

    def __init__(self, depth: int = 50, *, base_width: int = 64, split_groups: int | None = None, mixer_fusion: str = 'add_back',
                 **tied) -> None:
        if split_groups is None:
            if base_width not in SPLIT_GROUPS:
                raise ValueError(f'{type(self).__name__}: no preset of groups for base_width={base_width}; known: '
                                 f'{", ".join(map(str, SPLIT_GROUPS))}. Give split_groups, a divisor of {base_width}')
            split_groups = SPLIT_GROUPS[base_width]
        super().__init__(depth, base_width=base_width, split_groups=split_groups, mixer_fusion=mixer_fusion, **tied)


@MODELS.register_module()
class TiedSENet(TiedResNet):
    """TiedSENet-50 and -101 and their S variants (``base_width=18``): TiedResNet with a TiedSE after each exit (Table 1).

    The paper does not print the reduction. Its totals of 41.8M and 26.4M for TiedSENet-101 and -S fit B = 2 with reduction 8
    (41.68M and 26.39M) but not SENet's 16 (40.49M and 25.20M), so 8 is the default.

    Args:
        depth: 50, 101 or 152.
        se_ratio: Reduction of TiedSE.
        se_blocks: B of TiedSE.
        **tied: Arguments of `TiedResNet`.

    Example:
        >>> model = TiedSENet(depth=101, base_width=18)  # TiedSENet-101-S
        >>> round((sum(p.numel() for p in model.parameters()) + 2049000) / 1e6, 2)  # with an ImageNet head
        26.39
    """

    def __init__(self, depth: int = 50, *, se_ratio: int = 8, se_blocks: int = 2, **tied) -> None:
        super().__init__(depth, attention={'type': TiedSE, 'ratio': se_ratio, 'num_blocks': se_blocks}, **tied)


@MODELS.register_module()
class TiedSEResNet(TiedSENet):
    """SE-ResNet with only its attention tied (Table 3): a tied bottleneck with one split, B = 1 and no mixer is ResNet's.

    Args:
        depth: 50, 101 or 152.
        se_ratio: Reduction of TiedSE.
        se_blocks: B of TiedSE; 1 is SE-ResNet.
        **staged: Arguments of `StagedResNet`, named as in mmdet's ResNet.

    Example:
        >>> model = TiedSEResNet(depth=50, se_blocks=1)  # SE-ResNet-50
        >>> round((sum(p.numel() for p in model.parameters()) + 2049000) / 1e6, 1)
        28.1
    """

    def __init__(self, depth: int = 50, *, se_ratio: int = 16, se_blocks: int = 2, **staged) -> None:
        super().__init__(depth, se_ratio=se_ratio, se_blocks=se_blocks, splits=1, base_width=64, split_blocks=(1, ),
                         entry_blocks=1, shortcut_blocks=1, mixer_fusion='none', **staged)


def choose_split_blocks(splits: int, base_width: int, split_blocks: Sequence[int] | None = None, split_groups: int = 1,
                        backbone: str = 'TiedResNet') -> tuple[int, ...]:
    """Return B of each split: as given, or the paper's schedule with each B lowered to a divisor of base_width / split_groups.

    Example:
        >>> choose_split_blocks(splits=8, base_width=18)
        (1, 1, 1, 1, 2, 2, 3, 6)
        >>> choose_split_blocks(splits=4, base_width=72, split_groups=8)
        (1, 1, 3, 3)
    """
    check_blocks(backbone, 'base_width', base_width, 1, split_groups)
    if split_blocks is not None:
        check_sequence(backbone, 'split_blocks', split_blocks)
        if len(split_blocks) != splits:
            raise ValueError(f'{backbone}: split_blocks={tuple(split_blocks)} has {len(split_blocks)} values, expected one for '
                             f'each of the {splits} splits')
        return tuple(split_blocks)
    if split_groups == 1 and (splits, base_width) in SPLIT_PRESETS:
        return SPLIT_PRESETS[splits, base_width]
    if splits not in SPLIT_SCHEDULES:
        raise ValueError(f'{backbone}: no schedule of block numbers for splits={splits}; known: '
                         f'{", ".join(map(str, SPLIT_SCHEDULES))}. Give split_blocks, one value for each split')
    choices = divisors(base_width // split_groups)
    return tuple(max(choice for choice in choices if choice <= wanted) for wanted in SPLIT_SCHEDULES[splits])


def add_splits(x: Tensor, splits: int) -> Tensor:
    """Sum the splits of the channels; unlike reshape and sum, this keeps channels_last."""
    parts = x.chunk(splits, dim=1)  # indexed below: torch.fx cannot iterate over a proxy
    return reduce(torch.add, [parts[i] for i in range(splits)])
