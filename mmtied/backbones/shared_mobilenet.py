"""MobileNetV2 with shared filter bases.

Kang & Kim, "Deeply Shared Filter Bases", NeurIPS 2021, https://arxiv.org/abs/2006.05066, Table 1;
Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381.
"""

from mmengine.registry import MODELS
from torch import nn

from mmtied.compat import require
from mmtied.layers import FilterBasis, SharedConv2d

from .checkpoint import check_fits
from .shared_blocks import SharedStage


@MODELS.register_module(name='SharedMobileNetV2')
def shared_mobilenet_v2(*, num_bases: int = 1, strict_checkpoint: bool = True, **settings) -> nn.Module:
    """Build mmpretrain's MobileNetV2 with shared bases in each group of blocks; ``type='SharedMobileNetV2'`` in configs.

    The blocks of a group after the first have the same shape. Their expansions (1x1) are one basis, with two bases their
    projections (1x1) another. The paper's text makes the first two convolutions of a block the two bases, which would be the
    expansion and the depthwise convolution; the printed 2.98M fits the projection. Normalisations are never shared.

    mmpretrain is imported here, as its import is heavy. In the state_dict, shared filters are once under their group:
    ``layer4.bases.expand.weight``, ``layer4.bases.project.weight``.

    Args:
        num_bases: 1 or 2; 0 shares nothing, which is MobileNetV2.
        strict_checkpoint: Raise a ValueError for weights that do not fit, where mmengine would only warn.
        **settings: Everything that mmpretrain's MobileNetV2 takes: widen_factor, out_indices, frozen_stages, norm_cfg, norm_eval,
            with_cp, init_cfg ...

    Returns:
        The network: (N, 3, H, W) to a tuple of feature maps, by default the last, (N, 1280, H / 32, W / 32).

    Raises:
        ValueError: Another number of bases.
        ImportError: mmpretrain is not installed.
    """
    require('mmpretrain', 'SharedMobileNetV2')
    from mmpretrain.models.backbones import MobileNetV2
    if isinstance(num_bases, bool) or not isinstance(num_bases, int) or num_bases not in (0, 1, 2):
        raise ValueError(f'SharedMobileNetV2: num_bases={num_bases!r}, expected 0, 1 or 2')
    network = MobileNetV2(**settings)
    for name in network.layers:
        blocks = getattr(network, name)
        if isinstance(blocks, nn.Sequential) and len(blocks) > 2 and num_bases:
            setattr(network, name, _share(blocks, ('expand', 'project')[:num_bases]))
    if strict_checkpoint:
        network.register_load_state_dict_pre_hook(_check_fits)
    return network


def _check_fits(network: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    check_fits(network, state_dict, prefix)


def _share(blocks: nn.Sequential, roles: tuple[str, ...]) -> SharedStage:
    """The blocks as a stage in which all but the first share filters; an expansion is a block's first convolution."""
    first, *others = blocks
    bases = {}
    for role in roles:
        modules = [block.conv[0 if role == 'expand' else -1] for block in others]
        conv = modules[0].conv
        bases[role] = FilterBasis(conv.in_channels, conv.out_channels, conv.kernel_size)
        for module in modules:
            module.conv = SharedConv2d(conv.in_channels, conv.out_channels, conv.kernel_size, filters=bases[role])
    return SharedStage([first, *others], bases)
