"""IGCNet: networks of interleaved group convolutions with and without identity mappings (Tables 2, 3, 6 and 7)."""

from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtied.backbones.bottleneck import BasicBlock, BlockSettings, PadShortcut, after_pool
from mmtied.backbones.resnet_base import StagedResNet
from mmtied.layers.blocks import check_positive, divisors

#: conv_cfg of the blocks of IGC-L100M2 and IGC-L24M2.
L100M2 = {'type': 'IGC', 'num_secondary': 2}
L24M2 = {'type': 'IGC', 'num_primary': 24}
#: Fan-in initialization: initializers compute the fan-in of one group, but the fan-out of all groups.
IGC_INIT = [
    {'type': 'Kaiming', 'layer': 'Conv2d', 'mode': 'fan_in'},
    {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']},
]


class IGCBlock(BasicBlock):
    """Two normalized 3x3 convolutions, plus the input, a projection of it, or nothing.

    Args:
        block: Settings common to all blocks; its conv_cfg is for both convolutions.
        identity: Add the input to the output.
        shortcut_groups: Groups of the 1x1 projection if the shape changes; 'primary' is the first convolution's number of primary
            partitions (1 for an ordinary convolution); None is a `PadShortcut`.
    """

    def __init__(self, block: BlockSettings, *, identity: bool = True, shortcut_groups: int | str | None = None) -> None:
        self.identity = identity
        self.shortcut_groups = shortcut_groups
        super().__init__(block, block.conv_cfg, block.conv_cfg)

    def make_shortcut(self, block: BlockSettings) -> nn.Module:
        """Build a grouped projection or a parameter-free shortcut if the shape changes, else an Identity."""
        if not self.identity or (block.stride == 1 and block.in_channels == block.planes):
            return nn.Identity()
        groups = self.shortcut_groups
        if groups == 'primary':
            groups = getattr(self.entry.conv, 'num_primary', 1)

        def change_shape(stride: int) -> nn.Module:
            if groups is None:
                return PadShortcut(block.planes - block.in_channels, stride)
            return ConvModule(block.in_channels, block.planes, 1, stride, groups=groups, norm_cfg=block.norm_cfg, act_cfg=None)

        return after_pool(change_shape, block.stride, block.avg_down)

    def add_shortcut(self, out: Tensor, x: Tensor) -> Tensor:
        """Add the shortcut, if the block has an identity mapping."""
        return super().add_shortcut(out, x) if self.identity else out


@MODELS.register_module()
class IGCNet(StagedResNet):
    """IGC-L4M32, -L16M16 and -L100M2 + Ident., for ImageNet and detectors (Table 6): ResNet-18 with IGC blocks.

    ``base_channels`` is L M, the width of the first stage. Each stage doubles the width: M if ``conv_cfg`` has ``num_primary``, L
    if it has ``num_secondary``. The stem is an ordinary convolution.

    - IGC-L100M2: ``stem_channels=100, shortcut_groups='primary'``.
    - IGC-L4M32: ``base_channels=128, conv_cfg=dict(type='IGC', num_primary=4), shortcut_groups='primary'``.
    - IGC-L16M16: ``base_channels=256, conv_cfg=dict(type='IGC', num_primary=16), shortcut_groups='primary'``.
    - ResNet-18: ``base_channels=64, conv_cfg=None, shortcut_groups='primary'``.

    These stems and shortcuts are from the graphs that the authors released; the paper does not describe them. By default the stem
    has base_channels and the shortcuts have no weights.

    Args:
        depth: 18 or 34.
        base_channels: Width of stem and first stage.
        conv_cfg: Convolution layer of the blocks; None is an ordinary one.
        identity: Add the input of each block to its output ("+ Ident.").
        shortcut_groups: Groups of the 1x1 projections where the shape changes; 'primary' is each block's number of primary
            partitions (1 for ordinary convolutions); None subsamples the input and appends zeros.
        init_cfg: Initialization; None is Kaiming's by fan-in.
        **staged: Other arguments of `StagedResNet`, named as in mmdet's ResNet.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: a tuple of (N, base_channels * 2**i, H / 2**(i + 2), W / 2**(i + 2)) for each i in out_indices.

    Raises:
        ValueError: A setting is invalid; the message suggests a valid one.

    Example:
        >>> model = IGCNet(stem_channels=100, shortcut_groups='primary')  # IGC-L100M2 + Ident.
        >>> [tuple(block.entry.conv.partitions) for block in (model.layer1[0], model.layer4[1])]
        [(100, 2), (800, 2)]
        >>> sum(p.numel() for p in model.parameters() if p.dim() > 1) + 1600 * 1000 + 1000  # with a classifier: 8.61M
        8607700
    """

    stage_blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
    expansion = IGCBlock.expansion
    plugin_positions = IGCBlock.plugin_positions

    def __init__(self, depth: int = 18, *, base_channels: int = 200, conv_cfg: dict | None = L100M2, identity: bool = True,
                 shortcut_groups: int | str | None = None, init_cfg: dict | list[dict] | None = None, **staged) -> None:
        name = type(self).__name__
        check_positive(name, base_channels=base_channels)
        if isinstance(shortcut_groups, str) and shortcut_groups != 'primary':
            raise ValueError(f"{name}: shortcut_groups={shortcut_groups!r}, expected 'primary', a number of groups or None")
        if shortcut_groups not in (None, 'primary'):
            check_positive(name, shortcut_groups=shortcut_groups)
            if base_channels % shortcut_groups:
                raise ValueError(f'{name}: base_channels={base_channels} is not divisible by shortcut_groups={shortcut_groups}; '
                                 f'use one of {", ".join(map(str, divisors(base_channels)))}')
        if staged.get('style', 'pytorch') != 'pytorch':
            raise ValueError(f"{name}: style={staged['style']!r}, expected 'pytorch'; 'caffe' gives the stride to a 1x1 entry, "
                             'which blocks of two 3x3 convolutions lack')
        self.identity = identity
        self.shortcut_groups = shortcut_groups
        if not identity:  # zeros in the last normalization would zero the output
            staged['zero_init_residual'] = False
        super().__init__(depth, base_channels=base_channels, conv_cfg=conv_cfg, init_cfg=init_cfg or IGC_INIT, **staged)

    def make_stem(self, in_channels: int, channels: int, deep: bool, **cfgs) -> nn.Module:
        """Build the stem from ordinary convolutions."""
        return super().make_stem(in_channels, channels, deep, conv_cfg=None, norm_cfg=cfgs['norm_cfg'])

    def make_block(self, block: BlockSettings) -> IGCBlock:
        """Build one block."""
        return IGCBlock(block, identity=self.identity, shortcut_groups=self.shortcut_groups)


@MODELS.register_module()
class IGCNetCIFAR(IGCNet):
    """Networks of Tables 2, 3 and 7 for 32 x 32 images: one 3x3 convolution and three stages.

    With B convolutions per stage the depth is 3 B + 2; B is even, as in all networks of the paper.

    - IGC-L24M2: the defaults.
    - IGC-L4M8: ``base_channels=32, conv_cfg=dict(type='IGC', num_primary=4)``.
    - IGC-L32M26: ``base_channels=832, conv_cfg=dict(type='IGC', num_primary=32)``.
    - RegConv-W16: ``base_channels=16, conv_cfg=None``.
    - SumFusion: ``base_channels=8, conv_cfg=dict(type='SumFusion', num_branches=4)``.
    - The 8 layers of Figure 3, without down-sampling: ``depth=20, num_stages=1, out_indices=(0, )``.

    Args:
        depth: 8, 14, 20 and so on in steps of 6, up to 110.
        base_channels: Width of the first stage.
        conv_cfg: Convolution layer of the blocks; None is an ordinary one.
        identity: Add the input of each pair of convolutions to its output ("+ Ident."; the authors' networks combine it with
            ``shortcut_groups='primary'``).
        **igc: Other arguments of `IGCNet`.

    Example:
        >>> model = IGCNetCIFAR(depth=8)  # IGC-L24M2
        >>> sum(p.numel() for p in model.parameters() if p.dim() > 1) + 192 * 10 + 10  # with a classifier: 0.047M
        47002
    """

    stage_blocks = {6 * half + 2: (half, ) * 3 for half in range(1, 19)}
    small_images = True

    def __init__(self, depth: int = 20, *, base_channels: int = 48, conv_cfg: dict | None = L24M2, identity: bool = False,
                 **igc) -> None:
        igc = {'num_stages': 3, 'out_indices': (2, ), **igc}
        super().__init__(depth, base_channels=base_channels, conv_cfg=conv_cfg, identity=identity, **igc)
