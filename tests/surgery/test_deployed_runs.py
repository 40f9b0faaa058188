"""A deployed backbone under torch.compile, as TorchScript, as ONNX, and in a process without this package."""

import subprocess
import sys

import pytest
import torch

from mmtied.surgery import deploy
from tests.helpers.deployed import build
from tests.helpers.onnx_files import EXPORTERS, export_onnx, run_onnx
from tests.helpers.torch_versions import needs_dynamo, needs_inductor

ONE = {'num_stages': 1, 'out_indices': (0, )}
SHORT_NETWORKS = {
    'TiedSENet': ONE,
    'TiedResNeXt': {**ONE, 'mixer_fusion': 'add_back'},
    'TiedResNeSt': ONE,
    'SharedResNetCIFAR': {'shared_elements': 8, 'num_stages': 1, 'out_indices': (0, )},
    'IGCNetCIFAR': {**ONE, 'base_channels': 32, 'conv_cfg': {'type': 'IGC', 'num_secondary': 16}},
    'GResNeXt': ONE,
}


def make(network):
    return deploy(build(network, **SHORT_NETWORKS[network]))


def assert_same(mine, theirs):
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(torch.as_tensor(one), other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('network', SHORT_NETWORKS)
@pytest.mark.filterwarnings('ignore')
@torch.no_grad()
def test_torchscript_accepts_other_batches_and_sizes(network):
    model = make(network)
    for exported in (torch.jit.trace(model, torch.randn(1, 3, 64, 64)), torch.jit.script(model)):
        for shape in ((1, 3, 64, 64), (3, 3, 96, 64)):
            x = torch.randn(shape)
            assert_same(exported(x), model(x))


@pytest.mark.parametrize('network', ['TiedResNeXt', 'TiedResNeSt', 'GResNeXt'])
@pytest.mark.filterwarnings('ignore')
@torch.no_grad()
@needs_dynamo
def test_compiles_as_one_graph(network):
    model = make(network)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    for batch in (2, 3):
        x = torch.randn(batch, 3, 64, 64)
        assert_same(compiled(x), model(x))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@torch.no_grad()
@needs_inductor
def test_compiles_with_inductor():
    model = make('TiedSENet')
    torch._dynamo.reset()
    x = torch.randn(2, 3, 64, 64)
    assert_same(torch.compile(model)(x), model(x))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('network', 'exporter'), [
    *((network, EXPORTERS[0]) for network in ('TiedSENet', 'TiedResNeSt', 'IGCNetCIFAR')),
    pytest.param('TiedResNeSt', *EXPORTERS[1].values, marks=EXPORTERS[1].marks)])
def test_onnxruntime_matches_for_another_batch(network, exporter, tmp_path):
    model = make(network)
    export_onnx(model, torch.randn(1, 3, 64, 64), tmp_path / 'backbone.onnx', exporter)
    image = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert_same(run_onnx(tmp_path / 'backbone.onnx', image), model(image))


def test_saved_module_runs_without_this_package(tmp_path):
    model, x = make('TiedResNeSt'), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.save({'model': model, 'x': x, 'expected': model(x)}, tmp_path / 'model.pt')
    code = f'''
import sys
sys.modules.update(dict.fromkeys(('mmtied', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain')))  # None: cannot be imported
import torch
saved = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False)
with torch.no_grad():
    for mine, theirs in zip(saved['model'](saved['x']), saved['expected'], strict=True):
        torch.testing.assert_close(mine, theirs)
print('same')
'''
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, 'same\n'), result.stderr
