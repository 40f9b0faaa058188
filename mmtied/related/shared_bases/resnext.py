"""ResNeXt for CIFAR whose blocks share filter bases, structured as in the authors' code."""

from mmengine.registry import MODELS

from mmtied.backbones.bottleneck import BlockSettings, ConvBottleneck
from mmtied.backbones.resnet_base import StagedResNet, check_choice
from mmtied.layers.blocks import check_not_negative, check_positive

from .blocks import SharedStage
from .layers import FilterBasis, SharedConv2d


@MODELS.register_module()
class SharedResNeXtCIFAR(StagedResNet):
    """ResNeXt-50-32x4d-SsUu for images of 32 x 32, with a 3x3 stem without pooling.

    The first block of each stage is ResNeXt's. In the others the 3x3 group convolution is replaced by S shared and U own filters,
    whose S + U outputs are normalized and activated; the last 1x1 convolution combines them. In the first stage each group of
    channels has ``base_width`` of these. S, U and the groups of the own filters double with the width, those of the shared
    ones do not.

    In the state_dict, shared filters appear once, under their stage: ``layer2.bases.middle.weight``.

    Args:
        depth: 50, 101 or 152.
        num_bases: 1, or 0 for an ordinary ResNeXt.
        groups: Groups of the ordinary 3x3 convolutions.
        base_width: Channels of a group in the first stage, and filters of a group of shared or own ones.
        shared_elements: Shared filters in the first stage, S.
        unique_elements: Filters that each block adds in the first stage, U.
        **staged: Arguments of `StagedResNet`, named as in mmdet's ResNet.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: a tuple of (N, 256 * 2**i, H / 2**i, W / 2**i) for each i in out_indices.

    Raises:
        ValueError: A setting that cannot be built; the message says what would work.

    Example:
        >>> model = SharedResNeXtCIFAR()  # S64U4
        >>> sum(p.numel() for p in model.parameters()) + 2048 * 100 + 100  # on CIFAR-100: 19.3M
        19333380
    """

    small_images = True

    def __init__(self, depth: int = 50, *, num_bases: int = 1, groups: int = 32, base_width: int = 4, shared_elements: int = 64,
                 unique_elements: int = 4, **staged) -> None:
        name = type(self).__name__
        check_choice(name, 'num_bases', num_bases, (0, 1))
        check_positive(name, groups=groups, base_width=base_width, shared_elements=shared_elements)
        check_not_negative(name, unique_elements=unique_elements)
        for setting, elements in (('shared_elements', shared_elements), ('unique_elements', unique_elements)):
            if elements % base_width:
                raise ValueError(f'{name}: {setting}={elements} is not divisible by base_width={base_width}, the '
                                 'filters of a group')
        self._base_channels = staged.get('base_channels', 64)
        self.num_bases, self.groups, self.base_width = num_bases, groups, base_width
        self.shared_elements, self.unique_elements = shared_elements, unique_elements
        super().__init__(depth, **staged)

    def make_stage(self, blocks: list[BlockSettings]) -> SharedStage:
        """Build the first block with filters of its own, and the others with the stage's basis."""
        first, *others = blocks
        basis, unique = None, 0
        if self.num_bases and others:
            scale = first.planes // self._base_channels
            unique = self.unique_elements * scale
            basis = FilterBasis(self._width(first.planes), self.shared_elements * scale, 3,
                                groups=self.shared_elements // self.base_width)
        made = [self.make_block(first), *(self.make_block(block, basis, unique) for block in others)]
        return SharedStage(made, {} if basis is None else {'middle': basis})

    def make_block(self, block: BlockSettings, basis: FilterBasis | None = None, num_unique: int = 0) -> ConvBottleneck:
        """Build one residual block; without a basis it is ResNeXt's."""
        width = self._width(block.planes)
        if basis is None:
            return ConvBottleneck(block, width=width, groups=self.groups, conv_cfgs={})
        layer = {'type': SharedConv2d, 'filters': basis, 'num_unique': num_unique,
                 'unique_groups': max(1, num_unique // self.base_width)}
        return ConvBottleneck(block, width=width, groups=basis.groups, elements=basis.out_channels + num_unique,
                                conv_cfgs={'middle': layer})

    def _width(self, planes: int) -> int:
        return planes * self.base_width // 64 * self.groups
