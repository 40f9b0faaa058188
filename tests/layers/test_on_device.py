"""Every layer and algorithm on the device of ``--device``, in three precisions and both formats, against float64 on the CPU."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from mmtied.layers import IGC, TBC, TFC, TGC, DGConv, FilterBasis, SharedBasisConv, SumFusion
from mmtied.layers.algorithms import ALGORITHMS
from tests.helpers.dense_twins import dense_conv
from tests.helpers.torch_versions import HAS_FLOAT16_ON_CPU

FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
#: Largest relative error: norm of the difference divided by the norm of the result.
ERRORS = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
CHANNELS = 32


def shared_basis() -> SharedBasisConv:
    layer = SharedBasisConv(CHANNELS, CHANNELS, 3, padding=1, filters=FilterBasis(CHANNELS, 16, 3), num_unique=2)
    layer.register_module('basis', layer.filters)
    return layer


LAYERS = {
    **{f'TBC {kernel}x{kernel} {name}': lambda kernel=kernel, name=name: TBC(
        CHANNELS, 2 * CHANNELS, kernel, padding=kernel // 2, num_blocks=4, algorithm=name)
       for kernel in (1, 3) for name in ('auto', *ALGORITHMS) if kernel == 1 or name != 'matmul'},
    'TBC stride': lambda: TBC(CHANNELS, CHANNELS, 1, 2, num_blocks=4),
    'TGC': lambda: TGC(CHANNELS, CHANNELS, 3, padding=1, groups=2, num_blocks=4),
    'IGC': lambda: IGC(CHANNELS, CHANNELS, 3, padding=1, num_primary=4),
    'SumFusion': lambda: SumFusion(CHANNELS, CHANNELS, 3, padding=1, num_branches=2),
    'DGConv': lambda: DGConv(CHANNELS, CHANNELS, 3, padding=1),
    'SharedBasisConv': shared_basis,
}


@pytest.fixture(autouse=True)
def skip_float16(request: pytest.FixtureRequest, device: torch.device) -> None:
    """Skip float16 if torch has no convolutions for it."""
    wanted = getattr(request.node, 'callspec', None) and request.node.callspec.params.get('dtype')
    if wanted == torch.float16 and device.type == 'cpu' and not HAS_FLOAT16_ON_CPU:
        pytest.skip(f'torch {torch.__version__} < 2.3: float16 on CPUs')


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Disable TF32, which rounds the inputs of float32 convolutions on GPUs."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def check(layer: nn.Module, twin: nn.Module, x: torch.Tensor, device: torch.device, dtype: torch.dtype) -> None:
    """Compare a layer's output and gradients on the device with those of its float64 twin."""
    layer, twin = layer.to(device, dtype), twin.double()
    given = x.to(device, dtype).requires_grad_()
    expected_input = given.detach().cpu().double().requires_grad_()
    found, expected = layer(given), twin(expected_input)
    gradient = torch.randn_like(expected)
    found_gradients = torch.autograd.grad(found, [given, *layer.parameters()], gradient.to(device, dtype))
    expected_gradients = torch.autograd.grad(expected, [expected_input, *twin.parameters()], gradient)
    assert found.dtype == dtype and found.device.type == device.type
    pairs = [(found, expected), (found_gradients[0], expected_gradients[0])]
    if type(layer) is type(twin):
        pairs += zip(found_gradients[1:], expected_gradients[1:], strict=True)
    for mine, theirs in pairs:
        assert (mine.detach().cpu().double() - theirs).norm() <= ERRORS[dtype] * theirs.norm()


def rounded(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a float64 copy of the converted layer, so that only arithmetic differs."""
    return copy.deepcopy(layer).to(dtype).double()


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('dtype', ERRORS, ids=str)
@pytest.mark.parametrize('name', LAYERS)
def test_layers_match_float64(name, dtype, memory_format, device):
    layer = LAYERS[name]()
    twin = dense_conv(rounded(layer, dtype)) if isinstance(layer, TBC | TGC) else rounded(layer, dtype)
    x = torch.randn(4, CHANNELS, 12, 10).to(memory_format=FORMATS[memory_format])
    check(layer.to(memory_format=FORMATS[memory_format]), twin, x, device, dtype)


@pytest.mark.parametrize('dtype', ERRORS, ids=str)
def test_fully_connected_layer_matches_float64(dtype, device):
    layer = TFC(32, 64, num_blocks=4)
    check(layer, rounded(layer, dtype), torch.randn(8, 32), device, dtype)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', LAYERS)
def test_autocast_trains_float32_weights(name, dtype, device):
    layer = LAYERS[name]().to(device, memory_format=torch.channels_last)
    x = torch.randn(4, CHANNELS, 12, 10, device=device).to(memory_format=torch.channels_last)
    expected = layer(x)
    with torch.autocast(device.type, dtype):
        found = layer(x)
    assert found.dtype == dtype
    assert (found.float() - expected).norm() <= ERRORS[dtype] * expected.norm()
    found.float().square().sum().backward()
    assert all(weight.grad.dtype == torch.float32 and weight.grad.isfinite().all() for weight in layer.parameters())


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


@needs_gpu
@pytest.mark.parametrize('name', LAYERS)
def test_cuda_graph_replays_the_layer(name):
    layer = LAYERS[name]().to('cuda', memory_format=torch.channels_last)
    x = torch.randn(4, CHANNELS, 12, 10, device='cuda').to(memory_format=torch.channels_last)
    graphed = torch.cuda.make_graphed_callables(copy.deepcopy(layer), (x, ))
    other = torch.randn_like(x)
    torch.testing.assert_close(graphed(other), layer(other), atol=1e-4, rtol=1e-4)


@needs_gpu
@pytest.mark.parametrize('name', ['TBC 1x1 auto', 'TBC 3x3 auto', 'TBC 3x3 conv3d', 'IGC', 'DGConv'])
def test_compiled_layer_on_a_gpu(name):
    torch._dynamo.reset()
    layer = LAYERS[name]().to('cuda', memory_format=torch.channels_last)
    x = torch.randn(4, CHANNELS, 12, 10, device='cuda').to(memory_format=torch.channels_last)
    torch.testing.assert_close(torch.compile(layer)(x), layer(x), atol=1e-4, rtol=1e-4)
