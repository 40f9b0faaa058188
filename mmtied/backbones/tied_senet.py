"""SE networks with TiedSE: on the tied bottleneck (TiedSENet) and on the plain one (TiedSEResNet, Table 3).

Wang & Yu, "Tied Block Convolution", AAAI 2021, https://arxiv.org/abs/2009.12021, Tables 1 and 3.
"""

from mmengine.registry import MODELS

from mmtied.plugins import TiedSE

from .tied_resnet import TiedResNet


@MODELS.register_module()
class TiedSENet(TiedResNet):
    """TiedSENet-50 and -101, and their S variants (``base_width=18``): a TiedResNet with TiedSE after each exit.

    The paper does not print the reduction. Its totals, 41.8M and 26.4M for TiedSENet-101 and -S, fit B = 2 with reduction 8
    (41.68M and 26.39M) and not with SENet's 16 (40.49M and 25.20M), so 8 is the default.

    Args:
        depth: 50, 101 or 152.
        se_ratio: Reduction of TiedSE.
        se_blocks: B of TiedSE.
        **tied: Everything that `TiedResNet` takes.

    Example:
        >>> model = TiedSENet(depth=101, base_width=18)  # TiedSENet-101-S
        >>> round((sum(p.numel() for p in model.parameters()) + 2049000) / 1e6, 2)  # with an ImageNet head
        26.39
    """

    def __init__(self, depth: int = 50, *, se_ratio: int = 8, se_blocks: int = 2, **tied) -> None:
        super().__init__(depth, attention={'type': TiedSE, 'ratio': se_ratio, 'num_blocks': se_blocks}, **tied)


@MODELS.register_module()
class TiedSEResNet(TiedSENet):
    """SE-ResNet with its attention alone tied: with one split, B = 1 and no mixer, the tied bottleneck is the plain one.

    Args:
        depth: 50, 101 or 152.
        se_ratio: Reduction of TiedSE.
        se_blocks: B of TiedSE; 1 is SE-ResNet.
        **staged: Everything that `StagedResNet` takes, under the names of mmdet's ResNet.

    Example:
        >>> model = TiedSEResNet(depth=50, se_blocks=1)  # SE-ResNet-50
        >>> round((sum(p.numel() for p in model.parameters()) + 2049000) / 1e6, 1)
        28.1
    """

    def __init__(self, depth: int = 50, *, se_ratio: int = 16, se_blocks: int = 2, **staged) -> None:
        super().__init__(depth, se_ratio=se_ratio, se_blocks=se_blocks, splits=1, base_width=64, split_blocks=(1, ),
                         entry_blocks=1, shortcut_blocks=1, mixer_fusion='none', **staged)
