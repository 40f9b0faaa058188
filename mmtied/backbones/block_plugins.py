"""Plugins in residual blocks: the ``plugins=[dict(cfg=..., stages=..., position=...)]`` setting of mmdet's ResNet."""

from collections.abc import Sequence

import torch
from mmcv.cnn import build_plugin_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from .folded_norm import runs_eagerly_on_cpu

#: Where a plugin can stand, named as in mmdet's ResNet.
PLUGIN_POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')


class BlockPlugins(nn.Module):
    """The plugin layers of one block, by position.

    Args:
        plugins: dict(cfg=dict(type=...), position=...) each, in the order in which they run at their position.
        **channels: Channels at each position, by the position's name.
    """

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
        """Run the plugins that stand at a position."""
        for name in self.names[position]:
            x = run_plugin(getattr(self, name), x)
        return x


def run_plugin(layer: nn.Module, x: Tensor) -> Tensor:
    """Call a plugin or an attention layer with contiguous NCHW, unless it says that any memory format is as good.

    Backbones run in channels_last on the CPU, and layers such as mmcv's ContextBlock take views that only contiguous NCHW allows.
    """
    if x.is_contiguous() or getattr(layer, 'any_memory_format', False) or not runs_eagerly_on_cpu(x):
        return layer(x)
    return layer(x.contiguous()).contiguous(memory_format=torch.channels_last)


def check_registered(backbone: str, setting: str, cfg: dict) -> None:
    """Raise a ValueError for a layer's config whose type no registry knows, where mmcv would raise a KeyError about None."""
    with MODELS.switch_scope_and_registry(None) as registry:
        if isinstance(cfg['type'], str) and registry.get(cfg['type']) is None:
            raise ValueError(f'{backbone}: {setting} type {cfg["type"]!r} is not registered; correct the name, or name its '
                             "package in custom_imports")


def plugins_of_stage(backbone: str, plugins: Sequence[dict], stage: int, num_stages: int) -> list[dict]:
    """The plugins that stand in one stage, each as dict(cfg=..., position=...).

    Args:
        backbone: Name of the backbone, for messages.
        plugins: dict(cfg=dict(type=...), position=..., stages=(bool, ...)) each; without `stages` a plugin stands in every stage.
        stage: Index of the stage.
        num_stages: Number of stages.

    Raises:
        ValueError: A plugin without cfg or with an unknown type, an unknown position, or `stages` of another length.
    """
    chosen = []
    for plugin in plugins:
        unknown = set(plugin) - {'cfg', 'position', 'stages'}
        if unknown or 'type' not in plugin.get('cfg', {}):
            raise ValueError(f'{backbone}: plugin {dict(plugin)} must be dict(cfg=dict(type=...), position=..., stages=(...))')
        check_registered(backbone, 'plugin', plugin['cfg'])
        if plugin.get('position') not in PLUGIN_POSITIONS:
            raise ValueError(f'{backbone}: plugin position {plugin.get("position")!r}, expected one of '
                             f'{", ".join(PLUGIN_POSITIONS)}')
        stages = plugin.get('stages') or (True, ) * num_stages
        if len(stages) != num_stages:
            raise ValueError(f'{backbone}: plugin stages={tuple(stages)} has {len(stages)} values, expected one for each of the '
                             f'{num_stages} stages')
        if stages[stage]:
            chosen.append({'cfg': dict(plugin['cfg']), 'position': plugin['position']})
    return chosen
