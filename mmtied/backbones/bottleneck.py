"""Building blocks of all residual backbones: residual blocks, their plugins and shortcuts."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_plugin_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from .recompute import recompute

#: Plugin positions, named as in mmdet's ResNet.
PLUGIN_POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')


class BlockSettings(NamedTuple):
    """Settings common to all residual blocks; those not listed here are as in `StagedResNet`.

    Attributes:
        in_channels: Channels of the block's input.
        planes: Base channels of the stage; a bottleneck has four times as many output channels.
        plugins: Plugins of this block, each dict(cfg=..., position=...).
    """

    in_channels: int
    planes: int
    norm_cfg: dict
    conv_cfg: dict | None = None
    stride: int = 1
    dilation: int = 1
    style: str = 'pytorch'
    avg_down: bool = False
    plugins: Sequence[dict] = ()
    with_cp: bool | str = False

    @property
    def strides(self) -> tuple[int, int]:
        """Strides of a bottleneck's entry and middle."""
        return (self.stride, 1) if self.style == 'caffe' else (1, self.stride)

    def shortcut(self, out_channels: int, num_blocks: int = 1) -> nn.Module:
        """Build a projection shortcut (a 1x1 TBC), or an Identity if the shapes agree."""
        if self.stride == 1 and self.in_channels == out_channels:
            return nn.Identity()

        def project(stride: int) -> nn.Module:
            return ConvModule(self.in_channels, out_channels, 1, stride, conv_cfg=tied(num_blocks), norm_cfg=self.norm_cfg,
                              act_cfg=None)

        return after_pool(project, self.stride, self.avg_down)


class ResidualBlock(BaseModule):
    """Base class of residual blocks: a residual branch with plugins, a shortcut, and a ReLU after their sum.

    A subclass sets `entry` (the first layer), `exit` (the last layer, without activation) and `shortcut` (see
    `BlockSettings.shortcut`), then calls `add_layers`.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: (N, expansion * planes, H / stride, W / stride).
    """

    #: Output channels as a multiple of the block's planes.
    expansion = 1
    #: Positions at which the block runs plugins.
    plugin_positions = PLUGIN_POSITIONS

    def __init__(self, with_cp: bool | str) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.activate = nn.ReLU(inplace=True)

    def add_layers(self, attention: dict | None, plugins: Sequence[dict], **channels: int) -> None:
        """Build the plugins, and the attention at the end of the residual branch, whose config is like a plugin's cfg.

        `channels` are those at each position: after_conv1, after_conv2 and, in a bottleneck, after_conv3.
        """
        self.attention = nn.Identity()
        if attention is not None:
            _, self.attention = build_plugin_layer(attention, in_channels=channels['after_conv3'])
        self.plugins = BlockPlugins(plugins, **channels)

    @property
    def last_norm(self) -> nn.Module:
        """Normalization before the addition, which `zero_init_residual` sets to zero."""
        return self.exit.norm

    def init_added_layers(self) -> None:
        """Call `init_weights` of the attention and plugins that have it."""
        for layer in (self.attention, *self.plugins.children()):
            if hasattr(layer, 'init_weights'):
                layer.init_weights()

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual branch to the shortcut and activate."""
        if self.with_cp and x.requires_grad:
            return self.activate(recompute(self, self.residual, x, self.with_cp == 'norm'))
        return self.activate(self.residual(x))

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """Compute the block up to its last activation: the residual branch and `add_shortcut`."""

    def add_shortcut(self, out: Tensor, x: Tensor) -> Tensor:
        """Add the shortcut of the block's input `x` to the residual branch `out`."""
        return out + self.shortcut(x)


class Bottleneck(ResidualBlock):
    """Base class of bottlenecks: a 1x1 `entry`, a `middle` that the subclass implements, and a 1x1 `exit`."""

    expansion = 4

    def residual(self, x: Tensor) -> Tensor:
        """Compute the block up to its last activation."""
        out = self.plugins('after_conv1', self.entry(x))
        out = self.plugins('after_conv2', self.middle(out))
        out = self.plugins('after_conv3', self.attention(self.exit(out)))
        return self.add_shortcut(out, x)

    @abstractmethod
    def middle(self, x: Tensor) -> Tensor:
        """Compute the layers between entry and exit."""


class ConvBottleneck(Bottleneck):
    """ResNet's or ResNeXt's bottleneck of three convolutions, 1x1, 3x3, 1x1.

    Args:
        block: Settings common to all blocks.
        width: Input channels of the 3x3 convolution.
        conv_cfgs: conv_cfg of 'entry', 'middle' and 'exit', by default the block's.
        elements: Output channels of the 3x3 convolution; None is `width`.
        groups: Groups of the 3x3 convolution.
    """

    #: Name of the 3x3 convolution in checkpoint keys.
    middle_name = 'spatial'

    def __init__(self, block: BlockSettings, *, width: int, conv_cfgs: Mapping[str, dict | None], elements: int | None = None,
                 groups: int = 1) -> None:
        super().__init__(block.with_cp)
        elements = elements or width
        out_channels = block.planes * self.expansion
        entry_stride, middle_stride = block.strides
        norm_cfg, dilation = block.norm_cfg, block.dilation
        entry_cfg, middle_cfg, exit_cfg = (conv_cfgs.get(role, block.conv_cfg) for role in ('entry', 'middle', 'exit'))
        self.entry = ConvModule(block.in_channels, width, 1, entry_stride, conv_cfg=entry_cfg, norm_cfg=norm_cfg)
        self.add_module(self.middle_name, ConvModule(width, elements, 3, middle_stride, dilation, dilation, groups,
                                                     conv_cfg=middle_cfg, norm_cfg=norm_cfg))
        self.exit = ConvModule(elements, out_channels, 1, conv_cfg=exit_cfg, norm_cfg=norm_cfg, act_cfg=None)
        self.shortcut = block.shortcut(out_channels)
        self.add_layers(None, block.plugins, after_conv1=width, after_conv2=elements, after_conv3=out_channels)

    def middle(self, x: Tensor) -> Tensor:
        """Run the 3x3 convolution."""
        return getattr(self, self.middle_name)(x)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, `entry` and `exit`, with plugins at 'after_conv1' and 'after_conv2'.

    The first convolution has the stride; the style is ignored, as there is no 1x1 convolution.
    """

    plugin_positions = PLUGIN_POSITIONS[:2]

    def __init__(self, block: BlockSettings, entry_cfg: dict | None, exit_cfg: dict | None) -> None:
        super().__init__(block.with_cp)
        planes, dilation, norm_cfg = block.planes, block.dilation, block.norm_cfg
        self.entry = ConvModule(block.in_channels, planes, 3, block.stride, dilation, dilation, conv_cfg=entry_cfg,
                                norm_cfg=norm_cfg)
        self.exit = ConvModule(planes, planes, 3, 1, dilation, dilation, conv_cfg=exit_cfg, norm_cfg=norm_cfg, act_cfg=None)
        self.shortcut = self.make_shortcut(block)
        self.add_layers(None, block.plugins, after_conv1=planes, after_conv2=planes)

    def make_shortcut(self, block: BlockSettings) -> nn.Module:
        """Build the shortcut, by default a projection if the shape changes."""
        return block.shortcut(block.planes)

    def residual(self, x: Tensor) -> Tensor:
        """Compute the block up to its last activation."""
        out = self.plugins('after_conv1', self.entry(x))
        out = self.plugins('after_conv2', self.exit(out))
        return self.add_shortcut(out, x)


class PadShortcut(nn.Module):
    """Parameter-free shortcut: every `stride`-th pixel, and zeros for new channels (option A of He et al., 2016)."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad (N, C, H, W) to (N, C + new_channels, H / stride, W / stride)."""
        return F.pad(x[..., ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.new_channels))


class BlockPlugins(nn.Module):
    """Plugin layers of one block; those at the same position run in the order of the config."""

    def __init__(self, plugins: Sequence[dict], **channels: int) -> None:
        super().__init__()
        self.names = {position: [] for position in PLUGIN_POSITIONS}
        for index, plugin in enumerate(plugins):
            position = plugin['position']
            cfg = dict(plugin['cfg'])
            postfix = cfg.pop('postfix', f'_{index + 1}')
            name, layer = build_plugin_layer(cfg, postfix=postfix, in_channels=channels[position])
            self.add_module(name, layer)
            self.names[position].append(name)

    def forward(self, position: str, x: Tensor) -> Tensor:
        """Run the plugins at a position."""
        for name in self.names[position]:
            x = getattr(self, name)(x)
        return x


def plugins_of_stage(backbone: str, plugins: Sequence[dict], stage: int, num_stages: int,
                     positions: Sequence[str] = PLUGIN_POSITIONS) -> list[dict]:
    """Return the plugins of one stage, each as dict(cfg=..., position=...); a plugin without `stages` is in all of them."""
    chosen = []
    for plugin in plugins:
        unknown = set(plugin) - {'cfg', 'position', 'stages'}
        if unknown or 'type' not in plugin.get('cfg', {}):
            raise ValueError(f'{backbone}: plugin {dict(plugin)} must be dict(cfg=dict(type=...), position=..., stages=(...))')
        check_registered(backbone, 'plugin', plugin['cfg'])
        if plugin.get('position') not in positions:
            raise ValueError(f'{backbone}: plugin position {plugin.get("position")!r}, expected one of '
                             f'{", ".join(positions)}')
        stages = plugin.get('stages') or (True, ) * num_stages
        if len(stages) != num_stages:
            raise ValueError(f'{backbone}: plugin stages={tuple(stages)} has {len(stages)} values, expected one for each of the '
                             f'{num_stages} stages')
        if stages[stage]:
            chosen.append({'cfg': dict(plugin['cfg']), 'position': plugin['position']})
    return chosen


def check_registered(backbone: str, setting: str, cfg: dict) -> None:
    """Raise a ValueError if the type of a layer's config is not registered; mmcv's own KeyError only mentions None."""
    with MODELS.switch_scope_and_registry(None) as registry:
        if isinstance(cfg['type'], str) and registry.get(cfg['type']) is None:
            raise ValueError(f'{backbone}: {setting} type {cfg["type"]!r} is not registered; correct the name, or name its '
                             "package in custom_imports")


def scale_width(backbone: str, base_width: int, planes: int) -> int:
    """Return the width of a block's 3x3 convolutions; `base_width` is the width for 64 planes.

    Example:
        >>> scale_width('TiedResNet', base_width=18, planes=128)
        36
    """
    if base_width * planes % 64:
        raise ValueError(f'{backbone}: base_width={base_width} at {planes} base channels gives a width of '
                         f'{base_width * planes / 64:g}; base_width * base_channels must be divisible by 64')
    return base_width * planes // 64


def tied(num_blocks: int) -> dict:
    """Return the conv_cfg of a tied convolution."""
    return {'type': 'TBC', 'num_blocks': num_blocks}


def after_pool(make: Callable[[int], nn.Module], stride: int, avg_down: bool) -> nn.Module:
    """Return `make(stride)`, or with avg_down `make(1)` after an average pooling that takes the stride."""
    if not avg_down or stride == 1:
        return make(stride)
    return nn.Sequential(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False), make(1))
