"""TiedResNeSt: ResNeSt with tied entries and tied split attention.

Wang & Yu, "Tied Block Convolution", AAAI 2021, https://arxiv.org/abs/2009.12021, Figure 4 (c) and Table 1;
Zhang et al., "ResNeSt: Split-Attention Networks", https://arxiv.org/abs/2004.08955.
"""

from importlib import import_module

from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtied.compat import is_installed, require
from mmtied.layers.blocks import check_positive

from .bottleneck import BlockSettings, Bottleneck, tied
from .resnet_base import StagedResNet

#: Channels of the stem by depth, as in ResNeSt.
STEM_CHANNELS = {50: 64, 101: 128, 152: 128}


class SplitAttentionBottleneck(Bottleneck):
    """Entry (1x1 TBC), split attention over tied 3x3 convolutions, average pooling for the stride, exit (standard 1x1).

    The arguments are those of `TiedResNeSt`. The block's conv_cfg is for the exit; style 'pytorch' puts the stride into the
    pooling.
    """

    def __init__(self, block: BlockSettings, *, entry_blocks: int, conv_blocks: int, radix: int, reduction_factor: int,
                 pool_first: bool) -> None:
        super().__init__(block.with_cp)
        planes, dilation, norm_cfg = block.planes, block.dilation, block.norm_cfg
        out_channels = planes * self.expansion
        entry_stride, pool_stride = block.strides
        self.pool_first = pool_first
        self.entry = ConvModule(block.in_channels, planes, 1, entry_stride, conv_cfg=tied(entry_blocks), norm_cfg=norm_cfg)
        self.attend = _split_attention_layer()(planes, planes, 3, padding=dilation, dilation=dilation, radix=radix,
                                               reduction_factor=reduction_factor, norm_cfg=norm_cfg,
                                               conv_cfg={'type': 'TGC', 'num_blocks': conv_blocks})
        self.pool = nn.AvgPool2d(3, pool_stride, padding=1) if pool_stride > 1 else nn.Identity()
        self.exit = ConvModule(planes, out_channels, 1, conv_cfg=block.conv_cfg, norm_cfg=norm_cfg, act_cfg=None)
        self.shortcut = block.shortcut(out_channels)
        self.add_layers(None, block.plugins, after_conv1=planes, after_conv2=planes, after_conv3=out_channels)

    def middle(self, x: Tensor) -> Tensor:
        """Compute split attention and pooling."""
        return self.attend(self.pool(x)) if self.pool_first else self.pool(self.attend(x))


@MODELS.register_module()
class TiedResNeSt(StagedResNet):
    """TiedResNeSt-50-S, the only one in the paper, and deeper networks of the same structure.

    According to the text, every entry and every 3x3 convolution of ResNeSt's blocks is a TBC with B = 2. On ResNeSt-50-fast,
    which pools before the 3x3, that gives 15.75M and 2.94G (``pool_first=True, first_entry_blocks=2``); the paper prints 16.5M
    and 3.6G. Pooling after the 3x3, with an untied entry in the first block of each stage, comes closer (16.27M and 3.62G) and is
    the default.

    The split attention is mmdet's or mmpretrain's, whichever is installed. Its BatchNorm sees one value per image and channel,
    so training needs more than one image per batch or ``norm_eval=True``.

    Args:
        depth: 50, 101 or 152.
        radix: Number of splits of the attention.
        reduction_factor: Reduction of the attention's fully connected layers.
        entry_blocks: B of the first 1x1 convolution.
        first_entry_blocks: The same in the first block of each stage, which changes the width.
        conv_blocks: B of the 3x3 convolutions.
        pool_first: Apply the strided average pooling before the 3x3 convolution instead of after it.
        deep_stem, avg_down: As in `StagedResNet`.
        stem_channels: As in `StagedResNet`; None is 64 at depth 50 and 128 above, for 64 base channels.
        base_channels: As in `StagedResNet`.
        **staged: Other arguments of `StagedResNet`.

    Raises:
        ValueError: A setting is invalid; the message suggests a valid one.
        ImportError: Neither mmdet nor mmpretrain is installed.

    Example:
        >>> model = TiedResNeSt(depth=50)  # TiedResNeSt-50-S
        >>> round((sum(p.numel() for p in model.parameters()) + 2049000) / 1e6, 2)  # with an ImageNet head
        16.27
    """

    def __init__(self, depth: int = 50, *, radix: int = 2, reduction_factor: int = 4, entry_blocks: int = 2,
                 first_entry_blocks: int = 1, conv_blocks: int = 2, pool_first: bool = False, deep_stem: bool = True,
                 avg_down: bool = True, stem_channels: int | None = None, base_channels: int = 64, **staged) -> None:
        check_positive('TiedResNeSt', radix=radix, reduction_factor=reduction_factor, entry_blocks=entry_blocks,
                       first_entry_blocks=first_entry_blocks, conv_blocks=conv_blocks)
        self._own_settings = {'radix': radix, 'reduction_factor': reduction_factor, 'conv_blocks': conv_blocks,
                              'pool_first': pool_first}
        self._entry_blocks = entry_blocks
        self._first_entry_blocks = first_entry_blocks
        stem_channels = stem_channels or STEM_CHANNELS.get(depth, 64) * base_channels // 64
        super().__init__(depth, deep_stem=deep_stem, avg_down=avg_down, stem_channels=stem_channels, base_channels=base_channels,
                         **staged)

    def make_block(self, block: BlockSettings) -> SplitAttentionBottleneck:
        """Build one split-attention bottleneck."""
        widens = block.in_channels != block.planes * self.expansion
        return SplitAttentionBottleneck(block, **self._own_settings,
                                        entry_blocks=self._first_entry_blocks if widens else self._entry_blocks)


def _split_attention_layer() -> type[nn.Module]:
    """Import SplitAttentionConv2d from mmdet or mmpretrain."""
    package = 'mmpretrain' if is_installed('mmpretrain') and not is_installed('mmdet') else 'mmdet'
    require(package, 'TiedResNeSt')
    return import_module(f'{package}.models.backbones.resnest').SplitAttentionConv2d
