"""Build networks with weights and statistics as after training, and compare deployed ones with them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmtied.backbones as backbones
from tests.helpers.families import FAMILIES, tiny

#: Networks that are not in the tied families.
OTHERS = {
    'TiedEfficientNet': ('tied_efficientnet', {'out_indices': (2, 4, 6)}),
    'SharedResNet': ('SharedResNet', {'base_channels': 8, 'num_bases': 2}),
    'SharedResNetCIFAR': ('SharedResNetCIFAR', {'depth': 20, 'num_bases': 2, 'shared_elements': 16, 'out_indices': (0, 1, 2)}),
    'SharedMobileNetV2': ('shared_mobilenet_v2', {'widen_factor': 0.25, 'num_bases': 2, 'out_indices': (1, 3, 6)}),
    'IGCNet': ('IGCNet', {'base_channels': 16}),
    'IGCNetCIFAR': ('IGCNetCIFAR', {'depth': 8, 'out_indices': (0, 1, 2)}),
    'SumFusion': ('IGCNetCIFAR', {'depth': 8, 'base_channels': 8, 'conv_cfg': {'type': 'SumFusion', 'num_branches': 4}}),
    'GResNeXt': ('GResNeXt', {'base_channels': 8}),
}
NETWORKS = [*FAMILIES, *OTHERS]
#: Settings that change the blocks.
SHORT = {'num_stages': 2, 'out_indices': (0, 1)}
PLUGINS = [{'cfg': {'type': 'TiedSE', 'num_blocks': 4, 'ratio': 2}, 'position': 'after_conv1'},
           {'cfg': {'type': 'TiedGCB', 'num_blocks': 2}, 'position': 'after_conv3'}]
SETTINGS = {
    'concat, deep stem': {'mixer_fusion': 'concat', 'deep_stem': True, 'avg_down': True},
    'no mixer, with_cp': {'mixer_fusion': 'none', 'with_cp': True},
    'plugins': {'plugins': PLUGINS},
    'frozen': {'frozen_stages': 1, 'norm_eval': True},
    'SyncBN': {'norm_cfg': {'type': 'SyncBN'}},
}


def build(network: str, **settings) -> nn.Module:
    """Build a thin trained network, with small residuals so that rounding errors stay small."""
    if network in ('TiedEfficientNet', 'SharedMobileNetV2'):
        pytest.importorskip('mmpretrain')
    if network in FAMILIES:
        return trained(tiny(network, **settings))
    name, fixed = OTHERS[network]
    return trained(getattr(backbones, name)(**{**fixed, **settings}))


def trained(model: nn.Module, shape: tuple[int, ...] = (8, 3, 64, 64)) -> nn.Module:
    """Give a model statistics near those of its activations, and random scales and shifts; return it in training mode.

    Statistics unrelated to the activations would let them grow from layer to layer.
    """
    for norm in norms(model):
        norm.momentum = None
        shake(norm)
    for module in model.modules():
        if hasattr(module, 'last_norm'):
            nn.init.constant_(module.last_norm.weight, 0.2)
        elif getattr(module, 'with_res_shortcut', False) or getattr(module, 'with_residual', False):
            nn.init.constant_(module.linear_conv.norm.weight, 0.2)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.eval()  # it trains on GPUs only
    with torch.no_grad():
        model(torch.randn(shape))
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                module.running_mean += 0.1 * torch.randn_like(module.running_mean)
                module.running_var *= torch.empty_like(module.running_var).uniform_(0.8, 1.25)
    model.train()
    return model


def shake(norm: _BatchNorm) -> _BatchNorm:
    """Give a normalization a random scale, shift and statistics for each channel, and return it."""
    with torch.no_grad():
        if norm.weight is not None:
            norm.weight.uniform_(-1.2, 1.2)
            norm.bias.normal_(0, 0.2)
        if norm.running_mean is not None:
            norm.running_mean.normal_(0, 0.5)
            norm.running_var.uniform_(0.3, 3)
    return norm


def norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def packages(model: nn.Module) -> set[str]:
    return {type(module).__module__.partition('.')[0] for module in model.modules()}


@torch.no_grad()
def difference(model: nn.Module, deployed: nn.Module, x: Tensor) -> float:
    """Return the largest difference of outputs, relative to the largest output of a level where that is above one."""
    model.eval()
    expected, got = model(x), deployed(x)
    if isinstance(expected, Tensor):
        expected, got = (expected, ), (got, )
    assert all(theirs.abs().max() > 1e-3 for theirs in expected)
    return max(float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=1))
               for mine, theirs in zip(got, expected, strict=True))
