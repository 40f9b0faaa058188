"""GResNeXt: a ResNeXt that learns the number of groups of each 3x3 convolution (Section 3.3, Table 1, Figure 4)."""

from collections.abc import Sequence

from mmengine.registry import MODELS

from mmtied.backbones.bottleneck import BlockSettings, ConvBottleneck, scale_width
from mmtied.backbones.resnet_base import STAGE_BLOCKS, StagedResNet
from mmtied.layers.blocks import check_positive, divisors


class GroupableBottleneck(ConvBottleneck):
    """ResNeXt's bottleneck whose 3x3 convolution is a `DGConv` or has a given number of groups (Figure 4)."""

    middle_name = 'grouped'

    def __init__(self, block: BlockSettings, *, width: int, groups: int | None = None) -> None:
        conv_cfgs = {'middle': {'type': 'DGConv'}} if groups is None else {}
        super().__init__(block, width=width, conv_cfgs=conv_cfgs, groups=groups or 1)


@MODELS.register_module()
class GResNeXt(StagedResNet):
    """G-ResNeXt-50 and -101: ResNeXt-32x4d with every 3x3 convolution a `DGConv`.

    Train with the constraint that keeps it small:
    ``default_hooks=dict(resource=dict(type='mmtied.GroupResourceHook', b=32))``.

    With `groups` the 3x3 convolutions are ordinary grouped ones. One number for all blocks is ResNeXt (32 is ResNeXt-32x4d, 1
    with base_width=64 is ResNet); one number per block is ResNeXt with learned numbers (ResNeXt* in Table 6), which loads the
    weights of a trained network after `mmtied.surgery.freeze_groups`.

    Args:
        depth: 50, 101, 152 or 200.
        base_width: Channels of the 3x3 convolutions in the first stage when base_channels is 64.
        groups: None to learn them, one number for all blocks, or one number per block.
        **staged: Arguments of `StagedResNet`, named as in mmdet's ResNet.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: a tuple of (N, 256 * 2**i, H / 2**(i + 2), W / 2**(i + 2)) for each i in out_indices.

    Raises:
        ValueError: A setting is invalid; the message suggests a valid one.

    Example:
        >>> import torch
        >>> model = GResNeXt(depth=50)
        >>> model.layer4[0].grouped.conv  # doctest: +ELLIPSIS
        DGConv(1024, 1024, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)
        >>> [tuple(level.shape) for level in model(torch.rand(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
        >>> resnext = GResNeXt(depth=50, groups=32)
        >>> sum(p.numel() for p in resnext.parameters()) + 2048 * 1000 + 1000  # with an ImageNet head
        25028904
    """

    stage_blocks = {**STAGE_BLOCKS, 200: (3, 24, 36, 3)}

    def __init__(self, depth: int = 50, *, base_width: int = 128, groups: int | Sequence[int] | None = None, **staged) -> None:
        name = type(self).__name__
        check_positive(name, base_width=base_width)
        self._base_width = base_width
        self._groups = None
        if groups is not None:
            if not isinstance(groups, (int, tuple, list)):
                raise ValueError(f'{name}: groups={groups!r}, expected None, a positive integer, or one for each block')
            blocks = self.stage_blocks.get(depth, ()) if isinstance(depth, int) else ()
            number = sum(blocks[:staged.get('num_stages', 4)])
            each = [groups] * number if isinstance(groups, int) else list(groups)
            if number and len(each) != number:
                raise ValueError(f'{name}: groups has {len(each)} values, expected one for each of the {number} blocks, or '
                                 'one number for all')
            self._groups = iter(each)
        super().__init__(depth, **staged)
        del self._groups

    def make_block(self, block: BlockSettings) -> GroupableBottleneck:
        """Build one block with the next number of groups."""
        name = type(self).__name__
        width = scale_width(name, self._base_width, block.planes)
        groups = None if self._groups is None else next(self._groups)
        if groups is not None:
            check_positive(name, groups=groups)
            if width % groups:
                raise ValueError(f'{name}: a block of width {width} is not divisible by groups={groups}; use one of '
                                 f'{", ".join(map(str, divisors(width)))}')
        return GroupableBottleneck(block, width=width, groups=groups)
