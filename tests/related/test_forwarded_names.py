"""Names of mmtied.related that mmtied.layers, mmtied.backbones and mmtied.training forward."""

import importlib

import pytest

PACKAGES = ('layers', 'backbones', 'training')


@pytest.mark.parametrize('package', PACKAGES)
def test_every_public_name_resolves(package):
    module = importlib.import_module(f'mmtied.{package}')
    found = {name: getattr(module, name) for name in module.__all__}
    assert all(value.__module__.startswith('mmtied.') for value in found.values())
    assert any(value.__module__.startswith('mmtied.related.') for value in found.values())
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize('package', PACKAGES)
def test_unknown_name(package):
    with pytest.raises(AttributeError, match=f"module 'mmtied.{package}' has no attribute 'Unknown'"):
        importlib.import_module(f'mmtied.{package}').Unknown  # noqa: B018


def test_layers_need_only_torch(run_without_openmmlab):
    printed = run_without_openmmlab(
        'import torch\n'
        'from mmtied.layers import DGConv, IGC, FilterBasis, SharedConv2d\n'
        'layers = [DGConv(8, 8, 1), IGC(8, 8, 1), SharedConv2d(8, 8, 1, filters=FilterBasis(8, 8, 1))]\n'
        'print([tuple(layer(torch.rand(1, 8, 2, 2)).shape) for layer in layers])')
    assert printed.strip() == '[(1, 8, 2, 2), (1, 8, 2, 2), (1, 8, 2, 2)]'
