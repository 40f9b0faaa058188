"""Errors for misspelt arguments of layers and hooks suggest the nearest valid name, also through a config."""

import pytest
from mmcv.cnn import build_conv_layer
from mmengine.registry import HOOKS, MODELS

import mmtied  # noqa: F401
from mmtied.layers import FilterBasis, SharedConv2d


@pytest.mark.parametrize(('kind', 'right', 'misspelt'), [
    ('TBC', {'in_channels': 8, 'out_channels': 8, 'kernel_size': 1}, 'num_block'),
    ('TGC', {'in_channels': 8, 'out_channels': 8, 'kernel_size': 1}, 'group'),
    ('TFC', {'in_features': 8, 'out_features': 8}, 'num_block'),
    ('IGC', {'in_channels': 8, 'out_channels': 8, 'kernel_size': 1}, 'num_primarys'),
    ('SumFusion', {'in_channels': 8, 'out_channels': 8, 'kernel_size': 1}, 'num_branch'),
    ('DGConv', {'in_channels': 8, 'out_channels': 8, 'kernel_size': 1}, 'strides'),
    ('TiedSE', {'in_channels': 8}, 'ratios'),
    ('TiedGCB', {'in_channels': 8}, 'num_block'),
])
def test_layers(kind, right, misspelt):
    MODELS.build({'type': kind, **right})
    with pytest.raises(TypeError, match=f'{kind}: unexpected argument {misspelt}; did you mean '):
        MODELS.build({'type': kind, **right, misspelt: 2})


def test_layers_in_a_network():
    with pytest.raises(TypeError, match='TBC: unexpected argument num_block; did you mean num_blocks[?]'):
        build_conv_layer({'type': 'TBC', 'num_block': 2}, 8, 8, 1)
    with pytest.raises(TypeError, match='SharedConv2d: unexpected argument filter; did you mean filters[?]'):
        SharedConv2d(8, 8, 1, filter=FilterBasis(8, 8, 1))


@pytest.mark.parametrize(('kind', 'misspelt', 'nearest'), [
    ('OrthogonalityHook', 'weigth', 'weight'),
    ('GroupResourceHook', 'alfa', 'alpha'),
    ('GroupHistoryHook', 'intervall', 'interval'),
])
def test_hooks(kind, misspelt, nearest):
    with pytest.raises(TypeError, match=f'{kind}: unexpected argument {misspelt}; did you mean {nearest}[?]'):
        HOOKS.build({'type': f'mmtied.{kind}', misspelt: 1})
