"""What every residual backbone of the package shares: stem, stages, freezing, normalisation mode, outputs, plugins.

The conveniences and their names are those of mmdet's ResNet, so configs carry over; the class needs only mmengine and mmcv, and
serves mmpretrain's classifiers as well.
"""

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.layers.blocks import check_positive, check_sequence

from .block_plugins import check_registered, plugins_of_stage
from .bottleneck import Bottleneck
from .checkpoint import check_fits
from .folded_norm import ConvNorm, runs_eagerly_on_cpu
from .recomputed import recomputing

#: Blocks in each stage, by depth.
STAGE_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
#: Initialisation where init_cfg is None; it reaches tied convolutions too, through their parent class and their thin fan-out.
DEFAULT_INIT = [
    {'type': 'Kaiming', 'layer': 'Conv2d'},
    {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']},
]


class StagedResNet(BaseModule):
    """A stem and up to four stages of residual blocks; subclasses say what a block is.

    Args:
        depth: One of `stage_blocks`.
        in_channels: Channels of the image.
        stem_channels: Channels of the stem; base_channels if None.
        base_channels: Base channels of the first stage; each stage doubles them.
        num_stages: Number of stages, 1 to 4.
        strides: Stride of the first block of each stage.
        dilations: Dilation of each stage.
        out_indices: Stages whose outputs are returned.
        style: 'pytorch' (the stride is in the 3x3 convolutions) or 'caffe' (in the first 1x1).
        deep_stem: Three 3x3 convolutions in place of the 7x7 one.
        avg_down: Average pooling in place of the stride in shortcuts.
        frozen_stages: Freeze the stem and that many stages; 0 is the stem alone, -1 nothing.
        conv_cfg: Convolution layer of the standard convolutions.
        norm_cfg: Normalisation layer.
        norm_eval: Keep BatchNorm in evaluation mode while training.
        plugins: dict(cfg=..., stages=(bool, ...), position='after_conv1' | 'after_conv2' | 'after_conv3') each.
        with_cp: Recompute activations in the backward pass to save memory.
        zero_init_residual: Start each block as the identity, with zeros in its last normalisation.
        strict_checkpoint: Raise a ValueError for weights that do not fit, where mmengine would only warn.
        init_cfg: Initialisation; None is Kaiming's for convolutions. Give dict(type='Pretrained', checkpoint=...) for weights.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: a tuple of one (N, C_i, H / s_i, W / s_i) for each i in out_indices.

    Raises:
        ValueError: A setting that cannot be built; the message says what would work.
    """

    #: Blocks in each stage, by depth.
    stage_blocks: Mapping[int, tuple[int, ...]] = STAGE_BLOCKS
    #: Output channels of a block as a multiple of its planes.
    expansion: int = Bottleneck.expansion
    #: Whether the stages run in channels_last on the CPU, whatever the format of the input: where that was measured to be faster.
    channels_last_on_cpu: bool = False

    def __init__(self,
                 depth: int = 50,
                 *,
                 in_channels: int = 3,
                 stem_channels: int | None = None,
                 base_channels: int = 64,
                 num_stages: int = 4,
                 strides: Sequence[int] = (1, 2, 2, 2),
                 dilations: Sequence[int] = (1, 1, 1, 1),
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 style: str = 'pytorch',
                 deep_stem: bool = False,
                 avg_down: bool = False,
                 frozen_stages: int = -1,
                 conv_cfg: dict | None = None,
                 norm_cfg: dict | None = None,
                 norm_eval: bool = False,
                 plugins: Sequence[dict] | None = None,
                 with_cp: bool = False,
                 zero_init_residual: bool = True,
                 strict_checkpoint: bool = True,
                 init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg or DEFAULT_INIT)
        name = type(self).__name__
        sequences = {'strides': strides, 'dilations': dilations, 'out_indices': out_indices, 'plugins': plugins or []}
        for setting, values in sequences.items():
            check_sequence(name, setting, values)
        plugins = list(plugins or [])
        check_positive(name, in_channels=in_channels, base_channels=base_channels, stem_channels=stem_channels or base_channels)
        _check_choice(name, 'depth', depth, self.stage_blocks)
        _check_choice(name, 'style', style, ('pytorch', 'caffe'))
        _check_choice(name, 'num_stages', num_stages, range(1, len(self.stage_blocks[depth]) + 1))
        _check_choice(name, 'frozen_stages', frozen_stages, range(-1, num_stages + 1))
        for setting, values in (('strides', strides), ('dilations', dilations)):
            if len(values) < num_stages:
                raise ValueError(f'{name}: {setting}={tuple(values)} has {len(values)} values, expected one for each of the '
                                 f'{num_stages} stages')
            for value in values:
                check_positive(name, **{setting: value})
        if not out_indices or not set(out_indices) <= set(range(num_stages)):
            raise ValueError(f'{name}: out_indices={tuple(out_indices)}, expected some of {tuple(range(num_stages))}')

        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.zero_init_residual = zero_init_residual
        self.strict_checkpoint = strict_checkpoint
        stem_channels = stem_channels or base_channels
        norm_cfg = norm_cfg or {'type': 'BN', 'requires_grad': True}
        check_registered(name, 'norm_cfg', norm_cfg)

        self.stem = self.make_stem(in_channels, stem_channels, deep_stem, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stage_names = [f'layer{stage + 1}' for stage in range(num_stages)]
        channels = stem_channels
        for stage, (layer, num_blocks) in enumerate(zip(self.stage_names, self.stage_blocks[depth], strict=False)):
            planes = base_channels * 2**stage
            blocks = []
            for index in range(num_blocks):
                blocks.append({
                    'in_channels': channels,
                    'planes': planes,
                    'stride': strides[stage] if index == 0 else 1,
                    'dilation': dilations[stage],
                    'style': style,
                    'avg_down': avg_down,
                    'plugins': plugins_of_stage(name, plugins, stage, num_stages),
                    'with_cp': with_cp,
                    'conv_cfg': conv_cfg,
                    'norm_cfg': norm_cfg,
                })
                channels = planes * self.expansion
            self.add_module(layer, self.make_stage(blocks))

        self._freeze_stages()

    def make_stem(self, in_channels: int, channels: int, deep: bool, **cfgs) -> nn.Module:
        """Build the layers before the pooling: one 7x7 convolution, or three 3x3 ones; cfgs are conv_cfg and norm_cfg."""
        if not deep:
            return ConvNorm(in_channels, channels, 7, 2, 3, **cfgs)
        return nn.Sequential(
            ConvNorm(in_channels, channels // 2, 3, 2, 1, **cfgs),
            ConvNorm(channels // 2, channels // 2, 3, 1, 1, **cfgs),
            ConvNorm(channels // 2, channels, 3, 1, 1, **cfgs))

    def make_stage(self, blocks: list[dict]) -> nn.Module:
        """Build a stage, which iterates over its blocks, from the settings of each block for `make_block`."""
        return nn.Sequential(*(self.make_block(**settings) for settings in blocks))

    @abstractmethod
    def make_block(self, **settings) -> Bottleneck:
        """Build one residual block from in_channels, planes, stride, dilation and the settings shared by all blocks."""

    def init_weights(self) -> None:
        """Initialise; say once in the log when nothing pretrained is loaded, since mmdet's schedules expect that it is."""
        first_time = not self.is_init
        super().init_weights()
        if not first_time or self._loads_pretrained():
            return
        name = type(self).__name__
        print_log(f'{name}: no pretrained weights in init_cfg: random ones, unless load_from or resume brings others',
                  logger='current')
        if self.frozen_stages >= 0:
            print_log(f'{name}: frozen_stages={self.frozen_stages} freezes random weights unless load_from brings trained ones',
                      logger='current', level=logging.WARNING)
        for layer in self.stage_names:
            for block in getattr(self, layer):
                block.init_added_layers()
                if self.zero_init_residual:
                    nn.init.zeros_(block.last_norm.weight)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        if self.strict_checkpoint:
            check_fits(self, state_dict, prefix, optional=['plugins'])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _loads_pretrained(self) -> bool:
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        return any(config.get('type') == 'Pretrained' for config in configs)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the stages in out_indices."""
        converts = self.channels_last_on_cpu and x.stride(1) != 1 and runs_eagerly_on_cpu(x)
        if converts:
            x = x.contiguous(memory_format=torch.channels_last)
        with recomputing():
            x = self.maxpool(self.stem(x))
        outputs = []
        for stage, layer in enumerate(self.stage_names):
            x = getattr(self, layer)(x)
            if stage in self.out_indices:
                outputs.append(x.contiguous() if converts else x)
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'StagedResNet':
        """Set training mode, with frozen stages (and BatchNorm if norm_eval) kept in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        for part in [self.stem, *(getattr(self, layer) for layer in self.stage_names[:self.frozen_stages])]:
            part.eval()
            part.requires_grad_(False)


def _check_choice(backbone: str, setting: str, value: object, choices: Sequence) -> None:
    if isinstance(value, (list, dict)) or value not in choices:
        raise ValueError(f'{backbone}: {setting}={value!r}, expected one of {", ".join(map(repr, choices))}')
