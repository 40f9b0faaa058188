"""EfficientNet with TiedSE (Table 3).

Wang & Yu, "Tied Block Convolution", AAAI 2021, https://arxiv.org/abs/2009.12021;
Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", https://arxiv.org/abs/1905.11946.
"""

from mmengine.registry import MODELS
from torch import nn

from mmtied.layers.blocks import check_positive
from mmtied.plugins import TiedSE
from mmtied.plugins.tied_se import round_channels

from .from_mmpretrain import check_settings, network_class


@MODELS.register_module(name='TiedEfficientNet')
def tied_efficientnet(arch: str = 'b0', *, se_blocks: int = 2, strict_checkpoint: bool = True, **settings) -> nn.Module:
    """Build mmpretrain's EfficientNet with each of its SE layers replaced by a TiedSE; ``type='TiedEfficientNet'`` in configs.

    The hidden widths of the attention are EfficientNet's, rounded to a multiple of se_blocks (B = 4 in B0 turns 6 into 8 and 10
    into 12).

    Args:
        arch: 'b0' to 'b8', 'l2', 'es', 'em' or 'el'.
        se_blocks: B of TiedSE; 1 is EfficientNet.
        strict_checkpoint: Raise a ValueError for weights that do not fit, instead of mmengine's warning.
        **settings: Other arguments of mmpretrain's EfficientNet: drop_path_rate, out_indices, frozen_stages, norm_cfg, norm_eval,
            with_cp, init_cfg ...

    Returns:
        The network: (N, 3, H, W) to a tuple of feature maps, by default the last, (N, 1280, H / 32, W / 32) for B0.

    Raises:
        ValueError: arch is unknown, or se_blocks does not divide the channels.
        TypeError: An unknown setting.
        ImportError: mmpretrain is not installed.
    """
    make = network_class('TiedEfficientNet')
    from mmpretrain.models.utils import SELayer
    check_positive('TiedEfficientNet', se_blocks=se_blocks)
    if arch not in make.arch_settings:
        raise ValueError(f'TiedEfficientNet: arch={arch!r}, expected one of {", ".join(make.arch_settings)}')
    check_settings(tied_efficientnet, make, settings)
    network = make(arch, **settings)
    for block in network.modules():
        if isinstance(getattr(block, 'se', None), SELayer):
            block.se = _tied_copy(block.se, se_blocks, network.act_cfg)
    network.strict_checkpoint = strict_checkpoint
    return network


def _tied_copy(layer: nn.Module, num_blocks: int, act_cfg: dict) -> TiedSE:
    """Return a newly initialized TiedSE with the widths of an SELayer."""
    squeeze = layer.conv1.out_channels
    return TiedSE(layer.conv1.in_channels, num_blocks=num_blocks, squeeze_channels=round_channels(squeeze, num_blocks),
                  act_cfg=(act_cfg, {'type': 'Sigmoid'}))
