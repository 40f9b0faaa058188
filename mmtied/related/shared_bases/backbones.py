"""ResNets and a ResNeXt whose blocks share filter bases (Figure 2), structured like the authors' released networks."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtied.backbones.bottleneck import BasicBlock, BlockSettings, ConvBottleneck, PadShortcut, ResidualBlock
from mmtied.backbones.resnet_base import STAGE_BLOCKS, StagedResNet, check_choice
from mmtied.layers.blocks import check_not_negative, check_positive

from .layers import FilterBasis, SharedBasisConv, SharedConv2d

#: Blocks per stage of the networks with basic blocks, by depth; those with three stages are for CIFAR.
BASIC_STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3),
                      **{depth: ((depth - 2) // 6, ) * 3 for depth in (20, 32, 44, 56, 110)}}


class SharedStage(nn.Module):
    """Sequence of blocks with the filters that they share. Normalizations are never shared.

    Blocks have the keys of a Sequential (``0``, ``1``, ...). The shared filters are registered only here, under ``bases``, where
    the blocks' layers look them up. ``init_weights`` makes the bases orthonormal.

    Example:
        >>> basis = FilterBasis(4, 4, kernel_size=3)
        >>> stage = SharedStage([SharedConv2d(4, 4, 3, padding=1, filters=basis) for _ in range(5)], {'middle': basis})
        >>> len(stage), list(stage.state_dict())
        (5, ['bases.middle.weight'])
    """

    def __init__(self, blocks: Sequence[nn.Module], bases: dict[str, nn.Module]) -> None:
        super().__init__()
        for index, block in enumerate(blocks):
            self.add_module(str(index), block)
        self.bases = nn.ModuleDict(bases)
        keys = {filters: key for key, filters in bases.items()}
        for layer in self.modules():
            if isinstance(layer, (SharedConv2d, SharedBasisConv)) and layer.filters in keys:
                layer.refer_to(self.bases, keys[layer.filters])

    def init_weights(self) -> None:
        """Make the bases orthonormal, jointly if their filters have the same size; mmengine calls this after `init_cfg`."""
        sizes = defaultdict(list)
        for basis in self.bases.values():
            if isinstance(basis, FilterBasis):
                sizes[basis.weight.shape[1:]].append(basis.weight)
        for weights in sizes.values():
            joined = torch.cat([weight.detach() for weight in weights])
            nn.init.orthogonal_(joined)
            for weight, part in zip(weights, joined.split([len(weight) for weight in weights]), strict=True):
                weight.data.copy_(part)

    def __iter__(self) -> Iterator[nn.Module]:
        return (child for child in self.children() if child is not self.bases)

    def __len__(self) -> int:
        return len(self._modules) - 1

    def __getitem__(self, index: int | slice) -> nn.Module | list[nn.Module]:
        return list(self)[index]

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks in order."""
        for block in self:
            x = block(x)
        return x


class SharedBasicBlock(BasicBlock):
    """ResNet's basic block of two 3x3 convolutions, each optionally combined from a shared basis (Figure 2 a).

    A combined convolution is a `SharedBasisConv` with a normalization between basis and coefficients (unless ``basis_norm`` is
    False) and another one after them.

    Args:
        block: Settings common to all blocks; its conv_cfg is for ordinary convolutions.
        bases: Shared bases of 'entry' and 'exit', the first and the second convolution; without one it is ordinary.
        unique_elements: Basis elements that each combined convolution adds, U.
        basis_norm: Normalize between basis and coefficients.
        pad_shortcut: If the shape changes, use a `PadShortcut` instead of a projection.
    """

    def __init__(self, block: BlockSettings, *, bases: dict[str, FilterBasis], unique_elements: int = 0, basis_norm: bool = True,
                 pad_shortcut: bool = False) -> None:
        self.pad_shortcut = pad_shortcut

        def cfg_of(role: str) -> dict | None:
            if role not in bases:
                return block.conv_cfg
            norm = build_norm_layer(block.norm_cfg, bases[role].out_channels + unique_elements)[1] if basis_norm else None
            return {'type': SharedBasisConv, 'filters': bases[role], 'num_unique': unique_elements, 'norm': norm}

        super().__init__(block, cfg_of('entry'), cfg_of('exit'))

    def make_shortcut(self, block: BlockSettings) -> nn.Module:
        """Build a projection or a parameter-free shortcut."""
        if self.pad_shortcut and (block.stride != 1 or block.in_channels != block.planes):
            return PadShortcut(block.planes - block.in_channels, block.stride)
        return super().make_shortcut(block)


@MODELS.register_module()
class SharedResNet(StagedResNet):
    """ResNet-50/101-Shared, their two-bases and -Shared-All variants, and ResNet-34-SsUu.

    The first block of each stage is ordinary; the others share. Normalizations and shortcuts are never shared.

    In bottlenecks (50, 101, 152) the 3x3 convolutions of a stage share one basis. With ``num_bases=2`` (the paper's double
    dagger) the last 1x1 convolutions share another, as in the released network; the paper's text suggests the first ones, which
    ``second_basis='entry'`` shares. With ``num_bases=3`` (-Shared-All) all three are shared; the last are coefficients. In basic
    blocks (18, 34) every 3x3 convolution combines ``shared_elements`` elements of a basis and ``unique_elements`` of its own;
    with ``num_bases=2`` the first convolutions of the blocks share one basis and the second ones another.

    In the state_dict, shared filters appear once, under their stage: ``layer2.bases.middle.weight`` with bottlenecks (``entry``,
    ``middle``, ``exit``), ``layer2.bases.entry.weight`` with basic blocks (``entry``, and ``exit`` with two bases).

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_bases: Shared bases in each stage; 0 is an ordinary ResNet.
        second_basis: The 1x1 convolution that bottlenecks share with ``num_bases=2``: 'exit', the last, or 'entry', the first.
        shared_elements: Shared elements of a basis in the first stage when base_channels is 64, S, doubled in each following
            stage. None is 32; only for basic blocks.
        unique_elements: Elements that each convolution adds, U, scaled likewise. None is 1; only for basic blocks.
        basis_norm: Normalize between basis and coefficients. False, only for basic blocks, shows the effect of the normalization
            on gradients (Figure 3).
        **staged: Arguments of `StagedResNet`, named as in mmdet's ResNet.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: a tuple of (N, e * 64 * 2**i, H / 2**(i + 2), W / 2**(i + 2)) for each i in out_indices, e = 4 with bottlenecks
          and 1 with basic blocks.

    Raises:
        ValueError: A setting is invalid; the message suggests a valid one.

    Example:
        >>> model = SharedResNet(depth=50)
        >>> sum(p.numel() for p in model.parameters()) + 2048 * 1000 + 1000  # with an ImageNet head: 20.51M
        20506664
        >>> [key for key in model.state_dict() if key.startswith('layer4.bases')]
        ['layer4.bases.middle.weight']
        >>> model = SharedResNet(depth=34, num_bases=2, shared_elements=48)  # ResNet-34-S48U1
        >>> sum(p.numel() for p in model.parameters()) + 512 * 1000 + 1000  # 11.79M
        11786968
    """

    stage_blocks = {**STAGE_BLOCKS, 18: BASIC_STAGE_BLOCKS[18], 34: BASIC_STAGE_BLOCKS[34]}
    #: `pad_shortcut` of the basic blocks, and the stage width that S and U refer to.
    _pad_shortcut = False
    _element_planes = 64

    def __init__(self, depth: int = 50, *, num_bases: int = 1, second_basis: str = 'exit', shared_elements: int | None = None,
                 unique_elements: int | None = None, basis_norm: bool = True, **staged) -> None:
        name = type(self).__name__
        if not isinstance(depth, int) or depth not in self.stage_blocks:  # the other checks depend on it
            raise ValueError(f'{name}: depth={depth!r}, expected one of {", ".join(map(str, self.stage_blocks))}')
        self._basic = depth in BASIC_STAGE_BLOCKS
        largest = 2 if self._basic else 3
        if isinstance(num_bases, bool) or not isinstance(num_bases, int) or not 0 <= num_bases <= largest:
            raise ValueError(f'{name}: num_bases={num_bases!r} with depth {depth}, expected 0 to {largest}')
        if not self._basic and (shared_elements, unique_elements) != (None, None):
            basic = ', '.join(str(depth) for depth in sorted(self.stage_blocks) if depth in BASIC_STAGE_BLOCKS)
            raise ValueError(f'{name}: shared_elements={shared_elements}, unique_elements={unique_elements} with depth {depth}; '
                             f'they are for basic blocks (depth {basic}), a bottleneck shares whole convolutions')
        check_choice(name, 'second_basis', second_basis, ('exit', 'entry'))
        if second_basis == 'entry' and (self._basic or num_bases != 2):
            raise ValueError(f"{name}: second_basis='entry' with depth {depth} and num_bases={num_bases}; it is for bottlenecks "
                             '(depth 50, 101, 152) with num_bases=2')
        if not basis_norm and not self._basic:
            raise ValueError(f'{name}: basis_norm=False with depth {depth}; it is for basic blocks, as a bottleneck has no '
                             'coefficients after its basis')
        self.basis_norm = basis_norm
        self.num_bases = num_bases
        self.second_basis = second_basis
        self.shared_elements = 32 if shared_elements is None else shared_elements
        self.unique_elements = 1 if unique_elements is None else unique_elements
        check_positive(name, shared_elements=self.shared_elements)
        check_not_negative(name, unique_elements=self.unique_elements)
        block = SharedBasicBlock if self._basic else ConvBottleneck
        self.expansion, self.plugin_positions = block.expansion, block.plugin_positions
        super().__init__(depth, **staged)

    def make_stage(self, blocks: list[BlockSettings]) -> SharedStage:
        """Build the first block with filters of its own, and the others with the stage's bases."""
        first, *others = blocks
        bases = self._make_bases(first.planes) if others else {}
        by_role = {'entry': bases['entry'], 'exit': bases['entry'], **bases} if self._basic and bases else bases
        return SharedStage([self.make_block(first), *(self.make_block(block, by_role) for block in others)], bases)

    def make_block(self, block: BlockSettings, bases: dict[str, nn.Conv2d] | None = None) -> ResidualBlock:
        """Build one residual block; its convolutions 'entry', 'middle' and 'exit' use the shared filters of that name, if any."""
        bases = bases or {}
        if self._basic:
            return SharedBasicBlock(block, bases=bases, unique_elements=self._scaled('unique_elements', block.planes),
                                    basis_norm=self.basis_norm, pad_shortcut=self._pad_shortcut)
        shared = {role: {'type': SharedConv2d, 'filters': filters} for role, filters in bases.items()}
        return ConvBottleneck(block, width=block.planes, conv_cfgs=shared)

    def _make_bases(self, planes: int) -> dict[str, nn.Conv2d]:
        """Build the shared filters of a stage; with three (-Shared-All), those of the exits are coefficients, not a basis."""
        if self._basic:
            roles = ('entry', 'exit')[:self.num_bases]
            return {role: FilterBasis(planes, self._scaled('shared_elements', planes), 3) for role in roles}
        wide = planes * self.expansion
        bases = {}
        if self.num_bases == 3 or self.second_basis == 'entry':
            bases['entry'] = FilterBasis(wide, planes, 1)
        if self.num_bases >= 1:
            bases['middle'] = FilterBasis(planes, planes, 3)
        if self.num_bases == 3:
            bases['exit'] = nn.Conv2d(planes, wide, 1, bias=False)
        elif self.num_bases == 2 and self.second_basis == 'exit':
            bases['exit'] = FilterBasis(planes, wide, 1)
        return bases

    def checkpoint_hint(self, keys: Iterable[str]) -> str:
        """Return the setting that would fit a checkpoint with these keys, or ''."""
        shared = {key.rpartition('.bases.')[2] for key in keys if '.bases.' in key}
        fits = shared == {'entry.weight', 'middle.weight'} and self.num_bases == 2 and self.second_basis == 'exit'
        return "it shares the first 1x1 convolutions, so build the network with second_basis='entry'" if fits else ''

    def _scaled(self, setting: str, planes: int) -> int:
        """Return S or U at a stage's width."""
        elements = getattr(self, setting) * planes
        if elements % self._element_planes:
            raise ValueError(f'{type(self).__name__}: {setting}={getattr(self, setting)} at {planes} channels gives '
                             f'{elements / self._element_planes:g} elements; {setting} is for {self._element_planes} channels, '
                             'and base_channels must scale it to whole elements')
        return elements // self._element_planes


@MODELS.register_module()
class SharedResNetCIFAR(SharedResNet):
    """CIFAR variants for 32 x 32 images, with a 3x3 stem without pooling.

    Depths 20, 32, 44, 56 and 110 are He et al.'s networks with three stages of 16, 32 and 64 channels and parameter-free
    shortcuts; there S and U refer to 16 channels. The others are as in `SharedResNet`, with stages of 64 to 512 channels.

    Args:
        depth: 18, 20, 32, 34, 44, 50, 56, 101, 110 or 152.
        **shared: Arguments of `SharedResNet`; the depth sets base_channels and num_stages.

    Example:
        >>> model = SharedResNetCIFAR(depth=56, shared_elements=16)  # ResNet-56-S16U1
        >>> sum(p.numel() for p in model.parameters()) + 64 * 10 + 10  # 0.27M
        270842
    """

    stage_blocks = {**STAGE_BLOCKS, **BASIC_STAGE_BLOCKS}
    small_images = True

    def __init__(self, depth: int = 34, **shared) -> None:
        if isinstance(depth, int) and len(self.stage_blocks.get(depth, ())) == 3:
            shared = {'base_channels': 16, 'num_stages': 3, 'out_indices': (2, ), **shared}
            self._pad_shortcut = True
            self._element_planes = 16
        super().__init__(depth, **shared)


@MODELS.register_module()
class SharedResNeXtCIFAR(StagedResNet):
    """ResNeXt-50-32x4d-SsUu for 32 x 32 images, with a 3x3 stem without pooling.

    The first block of each stage is ResNeXt's. In the others, S shared and U own filters replace the 3x3 group convolution; their
    S + U outputs are normalized and activated, and the last 1x1 convolution combines them. In the first stage each group has
    ``base_width`` filters. S, U and the groups of the own filters double with the width; the groups of the shared filters do not.

    In the state_dict, shared filters appear once, under their stage: ``layer2.bases.middle.weight``.

    Args:
        depth: 50, 101 or 152.
        num_bases: 1, or 0 for an ordinary ResNeXt.
        groups: Groups of the ordinary 3x3 convolutions.
        base_width: Channels of a group in the first stage, and filters of a shared or own group.
        shared_elements: Shared filters in the first stage, S.
        unique_elements: Filters that each block adds in the first stage, U.
        **staged: Arguments of `StagedResNet`, named as in mmdet's ResNet.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: a tuple of (N, 256 * 2**i, H / 2**i, W / 2**i) for each i in out_indices.

    Raises:
        ValueError: A setting is invalid; the message suggests a valid one.

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
                raise ValueError(f'{name}: {setting}={elements} is not divisible by base_width={base_width}, the filters of a '
                                 'group')
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
