"""ResNeXt's bottleneck with a 3x3 convolution that learns its groups.

Zhang et al., "Differentiable Learning-to-Group Channels via Groupable Convolutional Neural Networks", ICCV 2019,
https://arxiv.org/abs/1908.05867, Figure 4.
"""

from mmcv.cnn import ConvModule
from torch import Tensor

from .bottleneck import Bottleneck, block_strides, build_shortcut


class GroupableBottleneck(Bottleneck):
    """1x1, a 3x3 `DGConv`, 1x1 (Figure 4).

    Args:
        in_channels: Channels of the input.
        planes: Base channels of the stage; the output has four times as many.
        width: Channels of the 3x3 convolution.
        groups: Its groups; None learns them.
        stride: Stride of the block.
        dilation: Dilation of the 3x3 convolution.
        style: 'pytorch' puts the stride into the 3x3 convolution, 'caffe' into the first 1x1.
        avg_down: Whether an average pooling takes the shortcut's stride.
        plugins: Plugins of this block, each dict(cfg=..., position=...).
        with_cp: Whether to recompute activations in the backward pass to save memory.
        conv_cfg: Convolution layer of the 1x1 convolutions, and of a 3x3 convolution whose groups are given.
        norm_cfg: Normalisation layer.

    Shape:
        - Input: (N, in_channels, H, W).
        - Output: (N, 4 * planes, H / stride, W / stride).
    """

    def __init__(self,
                 *,
                 in_channels: int,
                 planes: int,
                 width: int,
                 groups: int | None = None,
                 stride: int = 1,
                 dilation: int = 1,
                 style: str = 'pytorch',
                 avg_down: bool = False,
                 plugins: list[dict] = (),
                 with_cp: bool = False,
                 conv_cfg: dict | None = None,
                 norm_cfg: dict) -> None:
        super().__init__(with_cp)
        out_channels = planes * self.expansion
        entry_stride, middle_stride = block_strides(stride, style)
        grouping = {'conv_cfg': {'type': 'DGConv'}} if groups is None else {'conv_cfg': conv_cfg, 'groups': groups}

        self.entry = ConvModule(in_channels, width, 1, entry_stride, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        self.grouped = ConvModule(width, width, 3, middle_stride, dilation, dilation, norm_cfg=norm_cfg, **grouping)
        self.exit = ConvModule(width, out_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=None)
        self.shortcut = build_shortcut(in_channels, out_channels, stride, 1, avg_down, norm_cfg)
        self.add_layers(None, plugins, after_conv1=width, after_conv2=width, after_conv3=out_channels)

    def middle(self, x: Tensor) -> Tensor:
        """The 3x3 convolution."""
        return self.grouped(x)
