"""MobileNetV2 whose blocks share filter bases."""

from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtied.backbones.from_mmpretrain import check_settings, network_class

from .backbones import SharedStage
from .layers import FilterBasis, SharedConv2d

#: Channels from which the released network's attention combines three neighboring channels instead of one.
_WIDE_ATTENTION = 96


@MODELS.register_module(name='SharedMobileNetV2')
def shared_mobilenet_v2(*, num_bases: int = 1, released: bool = False, strict_checkpoint: bool = True, **settings) -> nn.Module:
    """Build mmpretrain's MobileNetV2 with shared bases in each group of blocks; ``type='SharedMobileNetV2'`` in configs.

    After the first, the blocks of a group have the same shape. Their expansions (1x1) share one basis, and with two bases their
    projections (1x1) another. The paper's text names the first two convolutions of a block, which would be the expansion and the
    depthwise convolution, but the printed size and the released network have the projection. Normalizations are never shared.

    ``released=True`` builds the authors' released network, which has ImageNet weights. It differs from MobileNetV2 in three
    places: its blocks have ReLU instead of ReLU6, its first block has an expansion too (from 32 to 32 channels), and with two
    bases the blocks that share end in a channel attention (`ChannelAttention`). The biases of its first and last convolution are
    omitted, since BatchNorm cancels them.

    In the state_dict, shared filters appear once, under their group: ``layer4.bases.expand.weight``,
    ``layer4.bases.project.weight``.

    Args:
        num_bases: 1 or 2; 0 is MobileNetV2.
        released: Build the authors' released network.
        strict_checkpoint: Raise a ValueError for weights that do not fit, instead of mmengine's warning.
        **settings: Arguments of mmpretrain's MobileNetV2: widen_factor, out_indices, frozen_stages, norm_cfg, norm_eval, with_cp,
            init_cfg ...

    Returns:
        The network, from (N, 3, H, W) to a tuple of feature maps, by default the last, (N, 1280, H / 32, W / 32).

    Raises:
        ValueError: num_bases is not 0, 1 or 2, or act_cfg is given for the released network.
        TypeError: An unknown setting.
        ImportError: mmpretrain is not installed.
    """
    make = network_class('SharedMobileNetV2')
    if isinstance(num_bases, bool) or not isinstance(num_bases, int) or num_bases not in (0, 1, 2):
        raise ValueError(f'SharedMobileNetV2: num_bases={num_bases!r}, expected 0, 1 or 2')
    check_settings(shared_mobilenet_v2, make, settings)
    if released and 'act_cfg' in settings:
        raise ValueError(f'SharedMobileNetV2: act_cfg={settings["act_cfg"]} with released=True, which sets the activations; '
                         'leave one of them out')
    network = make(**settings)
    if released:
        _change_blocks(network)
    for name in network.layers:
        blocks = getattr(network, name)
        if isinstance(blocks, nn.Sequential) and len(blocks) > 2 and num_bases:
            setattr(network, name, _share(blocks, ('expand', 'project')[:num_bases], released and num_bases == 2))
    network.strict_checkpoint = strict_checkpoint
    return network


class ChannelAttention(nn.Module):
    """Scale each channel by a gate computed from the means of `kernel_size` neighboring channels (ECA-Net, CVPR 2020)."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of (N, C, H, W)."""
        means = x.mean((2, 3)).unsqueeze(1)
        return x * self.conv(means).sigmoid().transpose(1, 2).unsqueeze(-1)


def _change_blocks(network: nn.Module) -> None:
    """Give the first block an expansion, and all blocks ReLU."""
    blocks = [block for name in network.layers if isinstance(stage := getattr(network, name), nn.Sequential) for block in stage]
    first = blocks[0]
    channels = first.conv[0].in_channels
    expand = ConvModule(channels, channels, 1, conv_cfg=network.conv_cfg, norm_cfg=network.norm_cfg, act_cfg=network.act_cfg)
    first.conv = nn.Sequential(expand, *first.conv)
    for block in blocks:
        for module in block.conv:
            if module.with_activation:
                module.activate = nn.ReLU(inplace=True)


def _share(blocks: nn.Sequential, roles: tuple[str, ...], attention: bool) -> SharedStage:
    """Convert blocks to a stage in which all but the first share filters; the expansion is a block's first convolution."""
    first, *others = blocks
    bases = {}
    for role in roles:
        modules = [block.conv[0 if role == 'expand' else -1] for block in others]
        conv = modules[0].conv
        bases[role] = FilterBasis(conv.in_channels, conv.out_channels, conv.kernel_size)
        for module in modules:
            module.conv = SharedConv2d(conv.in_channels, conv.out_channels, conv.kernel_size, filters=bases[role])
    if attention:
        for block in others:
            block.conv.append(ChannelAttention(3 if block.conv[-1].out_channels >= _WIDE_ATTENTION else 1))
    return SharedStage([first, *others], bases)
