"""Base class of the residual backbones: stem, stages, freezing, normalization mode, outputs, plugins, checkpoints.

Settings are named as in mmdet's ResNet, so configs carry over. The class needs only mmengine and mmcv, and also serves
mmpretrain's classifiers.
"""

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmtied.arguments import reject_unknown
from mmtied.layers.blocks import check_positive, check_sequence
from mmtied.torch_compat import has_selective_checkpoint

from .bottleneck import BlockSettings, Bottleneck, ResidualBlock, check_registered, plugins_of_stage
from .checkpoint import StrictCheckpoint

#: Blocks in each stage, by depth.
STAGE_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
#: Default init_cfg. It reaches tied convolutions through their parent class, with the fan-out of the thin weight.
DEFAULT_INIT = [
    {'type': 'Kaiming', 'layer': 'Conv2d'},
    {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']},
]
_DEFORMABLE = ('the network replaces the 3x3 convolutions itself; for deformable convolutions use mmdet.ResNet, or put them into '
               'the neck or head')
#: Settings of mmdet's networks that are not supported here, with advice.
UNSUPPORTED = {
    'pretrained': "use init_cfg=dict(type='Pretrained', checkpoint=...)",
    'dcn': _DEFORMABLE,
    'stage_with_dcn': _DEFORMABLE,
    **dict.fromkeys(('num_branch', 'test_branch_idx', 'trident_dilations'),
                    'it is for mmdet.TridentResNet, whose three branches share the weights of an ordinary 3x3 convolution'),
}
#: Values of `memory_format`.
MEMORY_FORMATS = {None: None, 'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


class StagedResNet(StrictCheckpoint, BaseModule):
    """A stem and up to four stages of residual blocks; subclasses implement `make_block`.

    Args:
        depth: One of `stage_blocks`.
        in_channels: Channels of the image.
        stem_channels: Channels of the stem; None is base_channels.
        base_channels: Base channels of the first stage, doubled in each following one.
        num_stages: Number of stages, 1 to 4.
        strides: Stride of the first block of each stage.
        dilations: Dilation of each stage.
        out_indices: Stages whose outputs are returned.
        style: 'pytorch' (the stride is in the 3x3 convolutions) or 'caffe' (in the first 1x1).
        deep_stem: Replace the 7x7 convolution by three 3x3 ones.
        avg_down: Use average pooling instead of a stride in shortcuts.
        frozen_stages: Freeze the stem and this many stages; 0 freezes the stem alone, -1 nothing.
        conv_cfg: Convolution layer of the standard convolutions.
        norm_cfg: Normalization layer.
        norm_eval: Keep BatchNorm in evaluation mode while training.
        plugins: Each a dict(cfg=..., stages=(bool, ...), position='after_conv1' | 'after_conv2' | 'after_conv3').
        with_cp: Save memory in training. True recomputes each block in the backward pass; 'norm' keeps the outputs of its
            convolutions and recomputes only normalizations and activations. 'norm' needs PyTorch 2.4, one backward pass per
            forward pass, and no plugin that overwrites a convolution's output in place, such as a ConvModule with an in-place
            ReLU but no norm_cfg. None is False.
        zero_init_residual: Zero the last normalization of each block, so that it starts as the identity.
        memory_format: Memory format inside the network: 'channels_last' or 'contiguous', both with contiguous outputs, or None
            to keep the input's.
        strict_checkpoint: Raise a ValueError for weights that do not fit, instead of mmengine's warning.
        init_cfg: Initialization; None is Kaiming's, dict(type='Pretrained', checkpoint=...) loads weights.
        **unknown: Raises a TypeError that suggests the nearest known name.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: a tuple of one (N, C_i, H / s_i, W / s_i) for each i in out_indices.

    Raises:
        ValueError: A setting is invalid; the message suggests a valid one.
        TypeError: An unknown setting.
    """

    #: Blocks in each stage, by depth.
    stage_blocks: Mapping[int, tuple[int, ...]] = STAGE_BLOCKS
    #: Output channels of a block as a multiple of its planes.
    expansion: int = Bottleneck.expansion
    #: Positions at which the blocks run plugins.
    plugin_positions: Sequence[str] = Bottleneck.plugin_positions
    optional_parts = ('plugins', )
    #: Use a stem of one 3x3 convolution without pooling, for 32 x 32 images.
    small_images: bool = False

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
                 with_cp: bool | str | None = False,
                 zero_init_residual: bool = True,
                 memory_format: str | None = None,
                 strict_checkpoint: bool = True,
                 init_cfg: dict | list[dict] | None = None,
                 **unknown) -> None:
        super().__init__(init_cfg or DEFAULT_INIT)
        name = type(self).__name__
        for setting in UNSUPPORTED:
            if setting in unknown:
                raise TypeError(f'{name}: {setting} is not supported; {UNSUPPORTED[setting]}')
        reject_unknown(name, unknown, *(parent.__init__ for parent in type(self).__mro__ if issubclass(parent, StagedResNet)))
        sequences = {'strides': strides, 'dilations': dilations, 'out_indices': out_indices, 'plugins': plugins or []}
        for setting, values in sequences.items():
            check_sequence(name, setting, values)
        plugins = list(plugins or [])
        with_cp = False if with_cp is None else with_cp
        stem_channels = stem_channels or base_channels
        norm_cfg = norm_cfg or {'type': 'BN', 'requires_grad': True}
        check_positive(name, in_channels=in_channels, base_channels=base_channels, stem_channels=stem_channels)
        if depth in (18, 34) and depth not in self.stage_blocks:
            raise ValueError(f'{name}: depth={depth} has blocks of two 3x3 convolutions, but this network needs bottlenecks; '
                             f'expected one of {", ".join(map(str, self.stage_blocks))}. To tie the convolutions of a '
                             f"ResNet-{depth}, give mmdet.ResNet conv_cfg=dict(type='TBC', num_blocks=2, indivisible='untie')")
        check_choice(name, 'depth', depth, self.stage_blocks)
        check_choice(name, 'style', style, ('pytorch', 'caffe'))
        check_choice(name, 'num_stages', num_stages, range(1, len(self.stage_blocks[depth]) + 1))
        check_choice(name, 'frozen_stages', frozen_stages, range(-1, num_stages + 1))
        check_choice(name, 'with_cp', with_cp, (False, True, 'norm'))
        if with_cp == 'norm' and not has_selective_checkpoint():
            raise ValueError(f"{name}: with_cp='norm' needs PyTorch 2.4 or newer, found {torch.__version__}; use with_cp=True")
        check_choice(name, 'memory_format', memory_format, MEMORY_FORMATS)
        check_registered(name, 'norm_cfg', norm_cfg)
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
        self.memory_format = memory_format
        self.strict_checkpoint = strict_checkpoint

        self.stem = self.make_stem(in_channels, stem_channels, deep_stem, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        self.maxpool = nn.Identity() if self.small_images else nn.MaxPool2d(3, 2, 1)
        self.stage_names = [f'layer{stage + 1}' for stage in range(num_stages)]
        channels = stem_channels
        for stage, (layer, num_blocks) in enumerate(zip(self.stage_names, self.stage_blocks[depth], strict=False)):
            planes = base_channels * 2**stage
            blocks = []
            for index in range(num_blocks):
                blocks.append(BlockSettings(
                    in_channels=channels,
                    planes=planes,
                    stride=strides[stage] if index == 0 else 1,
                    dilation=dilations[stage],
                    style=style,
                    avg_down=avg_down,
                    plugins=plugins_of_stage(name, plugins, stage, num_stages, self.plugin_positions),
                    with_cp=with_cp,
                    conv_cfg=conv_cfg,
                    norm_cfg=norm_cfg))
                channels = planes * self.expansion
            try:
                self.add_module(layer, self.make_stage(blocks))
            except ValueError as error:  # the layer names channels, but the user set base_channels
                if str(error).startswith(f'{name}: '):
                    raise
                raise ValueError(f'{name}: {layer} with base_channels={base_channels}: {error}') from None

        self._freeze_stages()

    def make_stem(self, in_channels: int, channels: int, deep: bool, **cfgs) -> nn.Module:
        """Build the layers before the pooling: a 7x7 convolution, three 3x3 ones (deep), or one 3x3 for small images."""
        if self.small_images and deep:
            raise ValueError(f'{type(self).__name__}: deep_stem=True, expected False; the stem is one 3x3 convolution')
        if self.small_images:
            return ConvModule(in_channels, channels, 3, 1, 1, **cfgs)
        if not deep:
            return ConvModule(in_channels, channels, 7, 2, 3, **cfgs)
        return nn.Sequential(
            ConvModule(in_channels, channels // 2, 3, 2, 1, **cfgs),
            ConvModule(channels // 2, channels // 2, 3, 1, 1, **cfgs),
            ConvModule(channels // 2, channels, 3, 1, 1, **cfgs))

    def make_stage(self, blocks: list[BlockSettings]) -> nn.Module:
        """Build a stage, an iterable of blocks, from the settings of each block."""
        return nn.Sequential(*(self.make_block(block) for block in blocks))

    @abstractmethod
    def make_block(self, block: BlockSettings) -> ResidualBlock:
        """Build one residual block from the settings common to all blocks."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the stages in out_indices."""
        if self.memory_format is not None:
            x = x.contiguous(memory_format=MEMORY_FORMATS[self.memory_format])
        x = self.maxpool(self.stem(x))
        outputs = []
        for stage, layer in enumerate(self.stage_names):
            x = getattr(self, layer)(x)
            if stage in self.out_indices:
                outputs.append(x if self.memory_format is None else x.contiguous())
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'StagedResNet':
        """Set the training mode, but keep frozen stages (and BatchNorm if norm_eval) in evaluation mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter and the number of depths, for mmpretrain's layer-wise learning rates.

        The stem has depth 0 and the head the last depth. In between they follow mmpretrain's ResNet: one depth for the first and
        the last stage each, and one for every two to four blocks of the others. A stage's shared filters have its first depth.
        """
        blocks = [len(getattr(self, layer)) for layer in self.stage_names]
        steps = (2, 3) if len(blocks) < 2 or blocks[1] < 8 else (4, 4)
        steps = [steps[stage - 1] if stage in (1, 2) else blocks[stage] for stage in range(len(blocks))]
        counts = [-(-number // step) for number, step in zip(blocks, steps, strict=True)]
        last = sum(counts) + 1
        if not param_name.startswith(prefix):
            return last, last + 1
        stage, _, rest = param_name.removeprefix(prefix).partition('.')
        if stage not in self.stage_names:
            return 0, last + 1
        index, block = self.stage_names.index(stage), rest.partition('.')[0]
        return 1 + sum(counts[:index]) + (int(block) // steps[index] if block.isdigit() else 0), last + 1

    def init_weights(self) -> None:
        """Initialize the weights, and log once if none are pretrained, as mmdet's schedules expect."""
        first_time = not self.is_init
        super().init_weights()
        if not first_time or self._loads_pretrained():
            return
        name = type(self).__name__
        print_log(f'{name}: no pretrained weights in init_cfg; the backbone starts from random weights unless load_from or '
                  'resume loads others', logger='current')
        if self.frozen_stages >= 0:
            print_log(f'{name}: frozen_stages={self.frozen_stages} freezes random weights unless load_from loads trained weights',
                      logger='current', level=logging.WARNING)
        for layer in self.stage_names:
            for block in getattr(self, layer):
                block.init_added_layers()
                if self.zero_init_residual and getattr(block.last_norm, 'weight', None) is not None:  # affine=False has none
                    nn.init.zeros_(block.last_norm.weight)

    def _loads_pretrained(self) -> bool:
        configs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        return any(config.get('type') == 'Pretrained' for config in configs)

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        for part in [self.stem, *(getattr(self, layer) for layer in self.stage_names[:self.frozen_stages])]:
            part.eval()
            part.requires_grad_(False)


def check_choice(backbone: str, setting: str, value: object, choices: Sequence) -> None:
    """Raise a ValueError for a value that is not among the choices."""
    if isinstance(value, (list, dict)) or value not in choices:
        raise ValueError(f'{backbone}: {setting}={value!r}, expected one of {", ".join(map(repr, choices))}')
