"""What the bottlenecks of all families share: entry, middle, exit, attention, plugins, and the addition to the shortcut."""

from abc import abstractmethod
from collections.abc import Callable

import torch.utils.checkpoint as checkpointing
from mmcv.cnn import build_plugin_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.native.batch_norm import Then

from .block_plugins import BlockPlugins, run_plugin
from .fast_norm import can_follow, can_normalise, is_fit, normalise_batch
from .folded_norm import ConvNorm, runs_eagerly_on_cpu
from .recomputed import normalise, recomputing
from .watched import is_watched


class Bottleneck(BaseModule):
    """A residual block of three parts: a 1x1 entry, a middle that the subclass defines, and a standard 1x1 exit.

    A subclass sets up `entry`, its middle layers, `exit`, `shortcut`, and last calls `add_layers`.

    Args:
        with_cp: Whether to recompute activations in the backward pass to save memory.
    """

    expansion = 4

    def __init__(self, with_cp: bool) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.activate = nn.ReLU(inplace=True)

    def add_layers(self, attention: dict | None, plugins: list[dict], **channels: int) -> None:
        """Build the attention at the end of the residual, and the plugins.

        Args:
            attention: Config of the attention layer, as a plugin's cfg, or None.
            plugins: Plugins of this block, each dict(cfg=..., position=...).
            **channels: Channels after_conv1 (entry), after_conv2 (middle) and after_conv3 (exit).
        """
        self.attention = None
        if attention is not None:
            _, self.attention = build_plugin_layer(attention, in_channels=channels['after_conv3'])
        self.plugins = BlockPlugins(plugins, **channels)

    @property
    def last_norm(self) -> nn.Module:
        """The normalisation before the addition, which `zero_init_residual` sets to zero."""
        return self.exit.norm

    def init_added_layers(self) -> None:
        """Let attention and plugins initialise themselves, where they know how."""
        for layer in (self.attention, *self.plugins.children()):
            if hasattr(layer, 'init_weights'):
                layer.init_weights()

    def forward(self, x: Tensor) -> Tensor:
        """Run the block; in the backward pass all of it is recomputed if `with_cp`, else the normalised activations."""
        if self.with_cp and x.requires_grad:
            return self.activate(checkpointing.checkpoint(self._residual, x, use_reentrant=False))
        with recomputing():
            inner = self._inner(x)
            if self._may_fuse_exit(inner):
                return self._fused_exit(inner, x)
            residual = self._outer(inner, x)
        return self.activate(residual)

    @abstractmethod
    def middle(self, x: Tensor) -> Tensor:
        """What happens between entry and exit."""

    def _residual(self, x: Tensor) -> Tensor:
        return self._outer(self._inner(x), x)

    def _inner(self, x: Tensor) -> Tensor:
        """What the exit gets."""
        out = self.plugins('after_conv1', self.entry(x))
        return self.plugins('after_conv2', self.middle(out))

    def _outer(self, inner: Tensor, x: Tensor) -> Tensor:
        """The exit and what follows, but for the last activation."""
        out = self.exit(inner)
        if self.attention is not None:
            out = run_plugin(self.attention, out)
        return self.add_shortcut(self.plugins('after_conv3', out), x)

    def add_shortcut(self, out: Tensor, x: Tensor) -> Tensor:
        """The residual plus the block's input, or what the shortcut makes of it."""
        identity = self._identity(x)
        return out.add_(identity) if self._may_overwrite(out) else out + identity

    def _identity(self, x: Tensor) -> Tensor:
        return x if self.shortcut is None else self.shortcut(x)

    def _may_fuse_exit(self, inner: Tensor) -> bool:
        """Whether the exit's normalisation, the addition of the shortcut and the last activation may be one pass over the map."""
        return (isinstance(self.exit, ConvNorm) and self.exit.ends_with_norm() and self._may_overwrite(inner)
                and type(self).add_shortcut is Bottleneck.add_shortcut and can_normalise(self.exit.norm)
                and can_follow(self.activate))

    def _fused_exit(self, inner: Tensor, x: Tensor) -> Tensor:
        """The exit, the addition and the last activation."""
        norm, z, identity = self.exit.norm, self.exit.conv(inner), self._identity(x)
        if is_fit(norm, z, identity):
            return normalise_batch(norm, z, Then.ADD_RELU, identity).y
        return self.activate(normalise(norm, None, z).add_(identity))

    def _may_overwrite(self, out: Tensor) -> bool:
        """Whether the residual is the exit's normalisation, whose output nobody else needs.

        An attention's or a plugin's output may be what its backward pass needs, and a hook may have kept what it saw.
        """
        norm = self.exit.norm
        extended = self.attention is not None or any(self.plugins.names.values())
        return (not extended and runs_eagerly_on_cpu(out) and isinstance(norm, _BatchNorm) and not is_watched(self.exit)
                and not is_watched(self.exit.conv) and not is_watched(norm))


class BasicBlock(Bottleneck):
    """A residual block of two parts: 3x3 `entry` and 3x3 `exit`, with nothing between; plugins at after_conv1 and after_conv2."""

    expansion = 1

    def middle(self, x: Tensor) -> Tensor:
        """Nothing stands between the two convolutions."""
        return x

    def _inner(self, x: Tensor) -> Tensor:
        return self.plugins('after_conv1', self.entry(x))

    def _outer(self, inner: Tensor, x: Tensor) -> Tensor:
        return self.add_shortcut(self.plugins('after_conv2', self.exit(inner)), x)


def block_strides(stride: int, style: str) -> tuple[int, int]:
    """The strides of entry and middle: 'caffe' has the block's stride in the entry, 'pytorch' in the middle."""
    return (stride, 1) if style == 'caffe' else (1, stride)


def tied(num_blocks: int) -> dict:
    """The conv_cfg of a tied 1x1 convolution."""
    return {'type': 'TBC', 'num_blocks': num_blocks}


def build_shortcut(in_channels: int, out_channels: int, stride: int, num_blocks: int, avg_down: bool,
                   norm_cfg: dict) -> nn.Module | None:
    """The projection shortcut of the first block of a stage; None where the identity fits."""
    if stride == 1 and in_channels == out_channels:
        return None
    return after_pool(
        lambda left: ConvNorm(in_channels, out_channels, 1, left, conv_cfg=tied(num_blocks), norm_cfg=norm_cfg, act_cfg=None),
        stride, avg_down)


def after_pool(make: Callable[[int], nn.Module], stride: int, avg_down: bool) -> nn.Module:
    """What `make` gives for a stride; with avg_down an average pooling takes the stride, and 1 is left for `make`."""
    if not avg_down or stride == 1:
        return make(stride)
    return nn.Sequential(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False), make(1))
