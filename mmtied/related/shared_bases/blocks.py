"""Residual blocks with shared filter bases, and the stage that holds the bases (Figure 2). Normalizations are never shared."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from mmtied.backbones.bottleneck import BasicBlock, BlockSettings, PadShortcut

from .layers import FilterBasis, SharedBasisConv, SharedConv2d


class SharedStage(nn.Module):
    """A sequence of blocks, and the filters that they share.

    Blocks have the same keys as in a Sequential (``0``, ``1``, ...). The shared filters are registered only here, under
    ``bases``, where the blocks' layers look them up. ``init_weights`` makes the bases orthonormal.

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
        """Make the bases orthonormal, those whose filters have the same size together; mmengine calls it after `init_cfg`."""
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
    """ResNet's basic block, two 3x3 convolutions, each of which can be combined from a shared basis (Figure 2 a).

    A combined convolution is a `SharedBasisConv` with a normalization between basis and coefficients (unless ``basis_norm`` is
    False), and another one after them.

    Args:
        block: Settings that every kind of block has; its conv_cfg is for ordinary convolutions.
        bases: Shared bases for 'entry' and 'exit', the first and the second convolution; others are ordinary.
        unique_elements: Basis elements that each combined convolution adds, U.
        basis_norm: Whether to normalize between basis and coefficients.
        pad_shortcut: Whether a shortcut that changes the channels is a `PadShortcut` instead of a projection.
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
        """Build a projection, or a shortcut without parameters."""
        if self.pad_shortcut and (block.stride != 1 or block.in_channels != block.planes):
            return PadShortcut(block.planes - block.in_channels, block.stride)
        return super().make_shortcut(block)
