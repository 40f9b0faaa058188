"""TiedResNet: a ResNet of tied bottlenecks.

Wang & Yu, "Tied Block Convolution: Leaner and Better CNNs with Shared Thinner Filters", AAAI 2021,
https://arxiv.org/abs/2009.12021. The structure is fitted to the sizes that the paper prints; see `tied_bottleneck`.
"""

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from mmtied.layers.blocks import check_positive, divisors

from .staged_resnet import StagedResNet
from .tied_bottleneck import MIXER_FUSIONS, TiedBottleneck

#: B of each split by the number of splits; 4 splits are published, the others were fitted to Table 5.
SPLIT_SCHEDULES = {2: (1, 2), 4: (1, 2, 4, 8), 6: (1, 1, 2, 4, 8, 8), 8: (1, 1, 1, 1, 2, 2, 4, 8)}
#: Settings (splits, base_width) that do not follow the schedule: the S networks, fitted to both of their printed sizes.
SPLIT_PRESETS = {(4, 18): (1, 2, 2, 3)}


@MODELS.register_module()
class TiedResNet(StagedResNet):
    """TiedResNet-50 and -101 (4 splits of width 32), their S variants (``base_width=18``), and the paper's ablations.

    Args:
        depth: 50, 101 or 152.
        splits: Number of splits of the 3x3 convolution, s.
        base_width: Channels of one split in the first stage when base_channels is 64, w.
        split_blocks: B of each split. None takes the paper's schedule for (splits, base_width), where a B that does not divide
            base_width is lowered to the largest divisor below it.
        entry_blocks: B of the first 1x1 convolution.
        shortcut_blocks: B of the projection shortcuts.
        mixer_fusion: 'sum', 'concat' or 'none' (Table 6).
        mixer_out_ratio: Channels that the mixer adds, as a share of the stage's base channels.
        **staged: Everything that `StagedResNet` takes, under the names of mmdet's ResNet.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: a tuple of (N, 256 * 2**i, H / 2**(i + 2), W / 2**(i + 2)) for each i in out_indices.

    Raises:
        ValueError: A setting that cannot be built; the message says what would work.

    Example:
        >>> import torch
        >>> model = TiedResNet(depth=50, base_width=18)  # TiedResNet-50-S
        >>> sum(p.numel() for p in model.parameters()) + 2048 * 1000 + 1000  # with an ImageNet head: 13.92M
        13921358
        >>> [tuple(level.shape) for level in model(torch.rand(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(self,
                 depth: int = 50,
                 *,
                 splits: int = 4,
                 base_width: int = 32,
                 split_blocks: Sequence[int] | None = None,
                 entry_blocks: int = 2,
                 shortcut_blocks: int = 2,
                 mixer_fusion: str = 'sum',
                 mixer_out_ratio: float = 0.5,
                 **staged) -> None:
        check_positive('TiedResNet', splits=splits, base_width=base_width, entry_blocks=entry_blocks,
                       shortcut_blocks=shortcut_blocks)
        if mixer_fusion not in MIXER_FUSIONS:
            raise ValueError(f'TiedResNet: mixer_fusion={mixer_fusion!r}, expected one of {", ".join(MIXER_FUSIONS)}')
        if mixer_out_ratio <= 0:
            raise ValueError(f"TiedResNet: mixer_out_ratio={mixer_out_ratio}, expected more than 0; mixer_fusion='none' leaves "
                             'the mixer out')
        self._block = {
            'split_blocks': choose_split_blocks(splits, base_width, split_blocks),
            'entry_blocks': entry_blocks,
            'shortcut_blocks': shortcut_blocks,
            'mixer_fusion': mixer_fusion,
            'mixer_out_ratio': mixer_out_ratio,
        }
        self._base_width = base_width
        super().__init__(depth, **staged)

    def make_block(self, *, planes: int, **settings) -> nn.Module:
        """Build one tied bottleneck."""
        if self._base_width * planes % 64:
            raise ValueError(f'TiedResNet: base_width={self._base_width} at {planes} base channels gives splits of '
                             f'{self._base_width * planes / 64:g} channels; base_width * base_channels must be divisible by 64')
        return TiedBottleneck(planes=planes, width=self._base_width * planes // 64, **self._block, **settings)


def choose_split_blocks(splits: int, base_width: int, split_blocks: Sequence[int] | None = None) -> tuple[int, ...]:
    """B of each split: as given, or the paper's schedule with each B lowered to a divisor of base_width.

    Raises:
        ValueError: Another number of values than splits, or no schedule for that number of splits.

    Example:
        >>> choose_split_blocks(splits=8, base_width=18)
        (1, 1, 1, 1, 2, 2, 3, 6)
    """
    if split_blocks is not None:
        if len(split_blocks) != splits:
            raise ValueError(f'TiedResNet: split_blocks={tuple(split_blocks)} has {len(split_blocks)} values, expected one for '
                             f'each of the {splits} splits')
        return tuple(split_blocks)
    if (splits, base_width) in SPLIT_PRESETS:
        return SPLIT_PRESETS[splits, base_width]
    if splits not in SPLIT_SCHEDULES:
        raise ValueError(f'TiedResNet: no schedule of block numbers for splits={splits}; known: '
                         f'{", ".join(map(str, SPLIT_SCHEDULES))}. Give split_blocks, one value for each split')
    return tuple(max(d for d in divisors(base_width) if d <= wanted) for wanted in SPLIT_SCHEDULES[splits])
