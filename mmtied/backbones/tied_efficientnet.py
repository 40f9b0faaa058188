"""EfficientNet with TiedSE (Table 3).

Wang & Yu, "Tied Block Convolution", AAAI 2021, https://arxiv.org/abs/2009.12021;
Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", https://arxiv.org/abs/1905.11946.
"""

from functools import cache
from inspect import signature

from mmengine.registry import MODELS
from torch import nn

from mmtied.compat import require
from mmtied.layers.blocks import check_positive
from mmtied.plugins import TiedSE
from mmtied.plugins.tied_se import round_channels

from .checkpoint import check_fits
from .resnet_base import reject_unknown


@MODELS.register_module(name='TiedEfficientNet')
def tied_efficientnet(arch: str = 'b0', *, se_blocks: int = 2, strict_checkpoint: bool = True, **settings) -> nn.Module:
    """Build mmpretrain's EfficientNet with each of its SE layers replaced by a TiedSE; ``type='TiedEfficientNet'`` in configs.

    mmpretrain is imported here because its import is slow. The widths between the attention's layers are EfficientNet's, rounded
    to a multiple of se_blocks (at B = 4 in B0, 6 becomes 8 and 10 becomes 12).

    Args:
        arch: 'b0' to 'b8', 'l2', 'es', 'em' or 'el'.
        se_blocks: B of TiedSE; 1 is EfficientNet.
        strict_checkpoint: Raise a ValueError for weights that do not fit, where mmengine would only warn.
        **settings: Everything that mmpretrain's EfficientNet takes: drop_path_rate, out_indices, frozen_stages, norm_cfg,
            norm_eval, with_cp, init_cfg ...

    Returns:
        The network: (N, 3, H, W) to a tuple of feature maps, by default the last, (N, 1280, H / 32, W / 32) for B0.

    Raises:
        ValueError: An unknown arch, or channels that se_blocks does not divide.
        TypeError: An unknown setting.
        ImportError: mmpretrain is not installed.
    """
    require('mmpretrain', 'TiedEfficientNet')
    from mmpretrain.models.utils import SELayer
    check_positive('TiedEfficientNet', se_blocks=se_blocks)
    network_class = _network_class()
    if arch not in network_class.arch_settings:
        raise ValueError(f'TiedEfficientNet: arch={arch!r}, expected one of {", ".join(network_class.arch_settings)}')
    known = signature(network_class.__init__).parameters
    reject_unknown('TiedEfficientNet', {name: settings[name] for name in settings if name not in known}, tied_efficientnet,
                   network_class.__init__)
    network = network_class(arch, **settings)
    for block in network.modules():
        if isinstance(getattr(block, 'se', None), SELayer):
            block.se = _tied_copy(block.se, se_blocks, network.act_cfg)
    if strict_checkpoint:
        network.register_load_state_dict_pre_hook(_check_fits)
    return network


@cache
def _network_class() -> type[nn.Module]:
    """Return mmpretrain's EfficientNet with a train() and eval() that return the network, as PyTorch's do."""
    from mmpretrain.models.backbones import EfficientNet

    class TiedEfficientNet(EfficientNet):

        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            return self

    TiedEfficientNet.__qualname__ = 'TiedEfficientNet'
    return TiedEfficientNet


def __getattr__(name: str) -> object:
    """Create the class when pickle looks for it, since it needs mmpretrain."""
    if name == 'TiedEfficientNet':
        return _network_class()
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def _check_fits(network: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    check_fits(network, state_dict, prefix)


def _tied_copy(layer: nn.Module, num_blocks: int, act_cfg: dict) -> TiedSE:
    """Return a newly initialized TiedSE with the widths of an SELayer."""
    squeeze = layer.conv1.out_channels
    return TiedSE(layer.conv1.in_channels, num_blocks=num_blocks, squeeze_channels=round_channels(squeeze, num_blocks),
                  act_cfg=(act_cfg, {'type': 'Sigmoid'}))
