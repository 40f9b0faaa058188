"""Algorithms of tied convolutions against a dense convolution, and the rule that picks one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmtied import layers
from mmtied.layers import TBC, TGC, tied_conv_algorithm
from mmtied.layers.algorithms import ALGORITHMS, CHOICES, Geometry, can_compute
from tests.helpers.dense_twins import dense_conv
from tests.helpers.onnx_files import EXPORTERS, export_onnx, run_onnx
from tests.helpers.torch_versions import needs_dynamo, needs_inductor

FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


@settings(deadline=None, max_examples=80)
@given(groups=st.integers(1, 3), blocks=st.integers(1, 4), ins=st.integers(1, 4), outs=st.integers(1, 4),
       kernel=st.sampled_from([(1, 1), (3, 3), (1, 3)]), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       padding=st.sampled_from([(0, 0), (1, 2), 'valid', 'same']), dilation=st.sampled_from([(1, 1), (2, 1)]),
       batch=st.integers(0, 3), memory_format=st.sampled_from(list(FORMATS)), bias=st.booleans(), trains=st.booleans())
def test_every_algorithm_equals_the_dense_convolution(groups, blocks, ins, outs, kernel, stride, padding, dilation, batch,
                                                      memory_format, bias, trains):
    stride = (1, 1) if padding == 'same' else stride
    layer = TGC(groups * blocks * ins, groups * blocks * outs, kernel, stride, padding, dilation, groups=groups, bias=bias,
                num_blocks=blocks, dtype=torch.float64)
    x = torch.randn(batch, layer.in_channels, 5, 6, dtype=torch.float64).to(memory_format=FORMATS[memory_format])
    expected = dense_conv(layer)(x)
    for name, algorithm in ALGORITHMS.items():
        if can_compute(name, layer.weight, layer.geometry):
            found = algorithm(x.detach().requires_grad_(trains), layer.weight, layer.bias, layer.geometry)
            torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('stride', [(1, 1), (2, 3)])
@pytest.mark.parametrize('algorithm', ALGORITHMS)
def test_gradients_of_every_algorithm(algorithm, stride, memory_format):
    kernel, padding = (1, 0) if algorithm == 'matmul' else (3, 1)
    geometry = Geometry(stride, (padding, padding), (1, 1), 1, 2)
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64).to(memory_format=FORMATS[memory_format]).requires_grad_()
    weight = torch.randn(3, 2, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *tensors: ALGORITHMS[algorithm](*tensors, geometry), (x, weight, bias))


@pytest.mark.parametrize(('layer', 'expected'), [
    (TBC(8, 8, 1, num_blocks=2), ['fold', 'grouped', 'matmul', 'dense', 'conv3d']),
    (TBC(8, 8, 1, padding=1, num_blocks=2), ['fold', 'grouped', 'dense', 'conv3d']),
    (TBC(8, 8, 3, num_blocks=2), ['fold', 'grouped', 'dense', 'conv3d']),
    (TGC(8, 8, 1, groups=2, num_blocks=2), ['grouped', 'dense']),
])
def test_can_compute(layer, expected):
    assert [name for name in ALGORITHMS if can_compute(name, layer.weight, layer.geometry)] == expected


@pytest.mark.parametrize(('layer', 'memory_format', 'algorithm'), [
    (TBC(8, 8, 1, num_blocks=2), 'contiguous', 'fold'),
    (TBC(8, 8, 1, num_blocks=2), 'channels_last', 'matmul'),
    (TBC(8, 8, 1, 2, num_blocks=2), 'contiguous', 'matmul'),
    (TBC(8, 8, 1, 2, num_blocks=2), 'channels_last', 'matmul'),
    (TBC(8, 8, 3, num_blocks=2), 'contiguous', 'grouped'),
    (TBC(8, 8, 3, num_blocks=4), 'contiguous', 'fold'),
    (TBC(8, 8, 3, num_blocks=2), 'channels_last', 'grouped'),
    (TBC(128, 128, 3, num_blocks=2), 'channels_last', 'fold'),
    (TGC(8, 8, 3, groups=2, num_blocks=2), 'contiguous', 'grouped'),
])
def test_rule_and_reason(layer, memory_format, algorithm):
    x = torch.randn(2, layer.in_channels, 5, 5).to(memory_format=FORMATS[memory_format])
    name, reason = layer.describe_dispatch(x).split(': ')
    assert name == algorithm
    assert len(reason) > 20


@pytest.mark.parametrize(('layer', 'algorithm'), [
    (TBC(8, 8, 1, 2, num_blocks=2), 'fold'),
    (TBC(8, 8, 3, 2, num_blocks=2), 'fold'),
    (TBC(8, 8, 3, num_blocks=2), 'grouped'),
])
def test_rule_without_gradients(layer, algorithm):
    with torch.no_grad():
        assert layer.describe_dispatch(torch.randn(2, 8, 5, 5)).startswith(algorithm)
    layer.requires_grad_(False)
    assert layer.describe_dispatch(torch.randn(2, 8, 5, 5)).startswith(algorithm)
    assert not layer.describe_dispatch(torch.randn(2, 8, 5, 5, requires_grad=True)).startswith('fold')


def calls(layer: TBC | TGC, x: torch.Tensor, monkeypatch) -> list[str]:
    """Return the algorithms that one call of the layer runs, in order."""
    ran = []
    for name, algorithm in list(ALGORITHMS.items()):
        monkeypatch.setitem(ALGORITHMS, name, lambda *args, name=name, run=algorithm: (ran.append(name), run(*args))[1])
    layer(x)
    return ran


@pytest.mark.parametrize('algorithm', ALGORITHMS)
def test_algorithm_of_the_context(algorithm, monkeypatch):
    x = torch.randn(1, 8, 5, 5)
    with tied_conv_algorithm(algorithm):
        assert calls(TBC(8, 8, 1), x, monkeypatch) == [algorithm]


@pytest.mark.parametrize('algorithm', ALGORITHMS)
def test_algorithm_of_the_layer_takes_precedence(algorithm, monkeypatch):
    layer = TBC(8, 8, 1, algorithm=algorithm)
    with tied_conv_algorithm('grouped'):
        assert calls(layer, torch.randn(1, 8, 5, 5), monkeypatch) == [algorithm]
    assert layer.describe_dispatch(torch.randn(1, 8, 5, 5)) == f'{algorithm}: as requested'


def test_impossible_algorithm_falls_back_to_the_rule(monkeypatch):
    with tied_conv_algorithm('matmul'):
        assert calls(TBC(8, 8, 3, padding=1), torch.randn(1, 8, 5, 5), monkeypatch) == ['grouped']
    explained = TGC(8, 8, 3, groups=2, num_blocks=2, algorithm='fold').describe_dispatch(torch.randn(1, 8, 5, 5))
    assert explained.startswith('grouped: fold was requested but cannot compute this layer; with groups')


def test_unknown_algorithm_set_as_attribute():
    layer = TBC(8, 8, 1)
    layer.algorithm = 'fastest'
    with pytest.raises(ValueError, match="algorithm='fastest', expected one of 'auto'"):
        layer(torch.randn(1, 8, 5, 5))


@pytest.mark.parametrize('shape', [(1, 6, 5, 5), (1, 1, 8, 5, 5), (8, )])
def test_describe_dispatch_accepts_the_inputs_of_forward(shape):
    layer = TBC(8, 8, 1)
    assert layer.describe_dispatch(torch.randn(8, 5, 5)) == layer.describe_dispatch(torch.randn(1, 8, 5, 5))
    with pytest.raises(ValueError, match='expected input of shape'):
        layer.describe_dispatch(torch.randn(shape))


def test_choice_is_restored_after_context():
    layer, x = TBC(8, 8, 1), torch.randn(1, 8, 5, 5)
    with pytest.raises(KeyError), tied_conv_algorithm('dense'):
        assert layer.describe_dispatch(x) == 'dense: as requested'
        raise KeyError
    assert layer.describe_dispatch(x).startswith('fold')


def test_unknown_algorithm_of_the_context():
    with pytest.raises(ValueError, match="algorithm='cudnn', expected one of 'auto', 'fold', 'grouped', 'matmul', 'dense', "
                   "'conv3d'"), \
            tied_conv_algorithm('cudnn'):
        pass


@pytest.mark.parametrize('use', [lambda: TBC(8, 8, 1, algorithm='measured'), lambda: TGC(8, 8, 1, way='measured'),
                                 tied_conv_algorithm('measured').__enter__])
def test_measured_was_removed(use):
    with pytest.raises(ValueError, match="'measured' was removed; use 'auto'"):
        use()


def test_former_names_still_work():
    assert layers.tied_convolution_way is tied_conv_algorithm
    layer, x = TBC(8, 8, 1), torch.randn(1, 8, 5, 5)
    assert layer.explain(x) == layer.describe_dispatch(x)


def test_layers_pickled_by_older_versions():
    layer = TBC(8, 8, 1)
    del layer.__dict__['algorithm']
    assert layer.describe_dispatch(torch.randn(1, 8, 5, 5)).startswith('fold')


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('layer', [TBC(8, 8, 1), TBC(8, 8, 3, padding=1, num_blocks=4), TGC(8, 8, 3, groups=2)])
def test_describe_dispatch_of_an_empty_batch(layer, memory_format):
    x = torch.randn(0, 8, 5, 5).to(memory_format=FORMATS[memory_format])
    assert layer.describe_dispatch(x).partition(': ')[0] in ALGORITHMS
    assert layer(x).size(0) == 0


@pytest.mark.parametrize('choice', CHOICES)
@pytest.mark.parametrize('kernel_size', [1, 3])
def test_gradients_per_image_with_torch_func(choice, kernel_size):
    layer = TBC(8, 8, kernel_size, padding=kernel_size // 2, num_blocks=2, algorithm=choice).double()
    images = torch.randn(3, 8, 5, 5, dtype=torch.float64)
    weights = dict(layer.named_parameters())

    def loss(weights: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, weights, (image, )).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, images)
    for index, image in enumerate(images):
        expected = torch.autograd.grad(loss(weights, image), list(weights.values()))
        for name, gradient in zip(weights, expected, strict=True):
            torch.testing.assert_close(found[name][index], gradient)


@needs_dynamo
@pytest.mark.parametrize('choice', CHOICES)
@pytest.mark.parametrize('memory_format', FORMATS)
def test_every_choice_compiles_as_one_graph(choice, memory_format):
    torch._dynamo.reset()
    layer = TBC(8, 8, 1, algorithm=choice)
    x = torch.randn(2, 8, 5, 5).to(memory_format=FORMATS[memory_format])
    compiled = torch.compile(layer, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(x), layer(x), atol=1e-6, rtol=1e-5)


@needs_inductor
@pytest.mark.slow
@pytest.mark.parametrize('memory_format', FORMATS)
def test_inductor_trains_with_dynamic_sizes(memory_format):
    """With dynamic height and width, torch 2.13 cannot compile the gradients of a folded batch and of strided products."""
    torch._dynamo.reset()
    network = nn.Sequential(TBC(32, 64, 1), nn.ReLU(), TBC(64, 64, 3, padding=1, num_blocks=4), TBC(64, 32, 1, 2))
    compiled = torch.compile(network)
    for side in (12, 20):
        x = torch.rand(2, 32, side, side + 4).to(memory_format=FORMATS[memory_format])
        got = torch.autograd.grad(compiled(x).square().sum(), network.parameters())
        expected = torch.autograd.grad(network(x).square().sum(), network.parameters())
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('trains', [True, False])
@pytest.mark.parametrize('choice', CHOICES)
def test_autocast(choice, trains, memory_format):
    layer = TBC(8, 8, 1, algorithm=choice)
    x = torch.randn(2, 8, 5, 5).to(memory_format=FORMATS[memory_format])
    with torch.autocast('cpu', torch.bfloat16), torch.set_grad_enabled(trains):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=0.05, rtol=0.05)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('exporter', EXPORTERS)
@pytest.mark.parametrize('layer', [
    TBC(8, 12, 3, 2, num_blocks=4, padding=1, algorithm='dense'), TGC(8, 12, 1, groups=2, algorithm='dense')])
def test_every_algorithm_exports_to_the_same_result(layer, exporter, tmp_path):
    x = torch.randn(2, 8, 6, 5)
    export_onnx(layer.eval(), x, tmp_path / 'layer.onnx', exporter)
    got, = run_onnx(tmp_path / 'layer.onnx', x)
    torch.testing.assert_close(got, layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('memory_format', FORMATS)
def test_traces_contain_convolutions(memory_format):
    x = torch.randn(2, 8, 5, 5).to(memory_format=FORMATS[memory_format])
    graph = str(torch.jit.trace(TBC(8, 8, 1), x).inlined_graph)
    assert 'aten::_convolution' in graph
    assert 'aten::linear' not in graph


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('algorithm', ALGORITHMS)
def test_every_algorithm_keeps_the_memory_format(algorithm, stride, memory_format):
    x = torch.randn(2, 8, 6, 6).to(memory_format=FORMATS[memory_format])
    assert TBC(8, 12, 1, stride, algorithm=algorithm)(x).is_contiguous(memory_format=FORMATS[memory_format])


@pytest.mark.parametrize('stride', [1, 2])
def test_gradient_of_matmul_keeps_channels_last(stride):
    x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    gradient, = torch.autograd.grad(TBC(8, 12, 1, stride, algorithm='matmul')(x).square().sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
