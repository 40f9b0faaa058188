"""The ways of computing a tied convolution, against a dense one with the weight written block by block; and their choice."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmtied.layers import TBC, TGC, tied_convolution_way, way_timing
from mmtied.layers.choice import CHOICES
from mmtied.layers.tied_ways import WAYS, Geometry, possible_ways

FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


def block_diagonal(weight: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """The weight of an ungrouped convolution, by Eq. 3 and 4 of the paper, one block after the other."""
    groups, blocks = geometry.groups, geometry.num_blocks
    outs, ins = weight.size(0) // groups, weight.size(1)
    dense = weight.new_zeros(groups * blocks * outs, groups * blocks * ins, *weight.shape[2:])
    for index, (group, _) in enumerate(itertools.product(range(groups), range(blocks))):
        dense[index * outs:(index + 1) * outs, index * ins:(index + 1) * ins] = weight[group * outs:(group + 1) * outs]
    return dense


@settings(deadline=None, max_examples=80)
@given(groups=st.integers(1, 3), blocks=st.integers(1, 4), ins=st.integers(1, 4), outs=st.integers(1, 4),
       kernel=st.sampled_from([(1, 1), (3, 3), (1, 3)]), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       padding=st.sampled_from([(0, 0), (1, 2), 'valid']), batch=st.integers(0, 3), memory_format=st.sampled_from(list(FORMATS)),
       bias=st.booleans(), trains=st.booleans())
def test_every_way_equals_the_dense_convolution(groups, blocks, ins, outs, kernel, stride, padding, batch, memory_format, bias,
                                                trains):
    geometry = Geometry(stride, padding, (1, 1), groups, blocks)
    weight = torch.randn(groups * outs, ins, *kernel, dtype=torch.float64)
    tied_bias = torch.randn(groups * outs, dtype=torch.float64) if bias else None
    x = torch.randn(batch, groups * blocks * ins, 5, 6, dtype=torch.float64).to(memory_format=FORMATS[memory_format])
    expected = F.conv2d(x, block_diagonal(weight, geometry), None, stride, padding)
    if bias:
        per_group = tied_bias.view(groups, 1, outs).expand(groups, blocks, outs)
        expected = expected + per_group.reshape(1, -1, 1, 1)
    for way in possible_ways(weight, geometry):
        found = WAYS[way](x.detach().requires_grad_(trains), weight, tied_bias, geometry)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('stride', [(1, 1), (2, 3)])
@pytest.mark.parametrize('way', WAYS)
def test_gradients_of_every_way(way, stride, memory_format):
    kernel, padding = (1, 0) if way == 'matmul' else (3, 1)
    geometry = Geometry(stride, (padding, padding), (1, 1), 1, 2)
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64).to(memory_format=FORMATS[memory_format]).requires_grad_()
    weight = torch.randn(3, 2, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *tensors: WAYS[way](*tensors, geometry), (x, weight, bias))


@pytest.mark.parametrize(('layer', 'expected'), [
    (TBC(8, 8, 1, num_blocks=2), ['fold', 'grouped', 'dense', 'matmul']),
    (TBC(8, 8, 1, padding=1, num_blocks=2), ['fold', 'grouped', 'dense']),
    (TBC(8, 8, 3, num_blocks=2), ['fold', 'grouped', 'dense']),
    (TGC(8, 8, 1, groups=2, num_blocks=2), ['grouped', 'dense']),
])
def test_possible_ways(layer, expected):
    assert possible_ways(layer.weight, layer.geometry) == expected


@pytest.mark.parametrize(('layer', 'memory_format', 'way'), [
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
def test_the_rule_and_its_reason(layer, memory_format, way):
    x = torch.randn(2, layer.in_channels, 5, 5).to(memory_format=FORMATS[memory_format])
    name, reason = layer.explain(x).split(': ')
    assert name == way
    assert len(reason) > 20


@pytest.mark.parametrize(('layer', 'way'), [
    (TBC(8, 8, 1, 2, num_blocks=2), 'fold'),
    (TBC(8, 8, 3, 2, num_blocks=2), 'fold'),
    (TBC(8, 8, 3, num_blocks=2), 'grouped'),
])
def test_the_rule_without_gradients(layer, way):
    with torch.no_grad():
        assert layer.explain(torch.randn(2, 8, 5, 5)).startswith(way)
    layer.requires_grad_(False)
    assert layer.explain(torch.randn(2, 8, 5, 5)).startswith(way)
    assert not layer.explain(torch.randn(2, 8, 5, 5, requires_grad=True)).startswith('fold')


def calls(layer: TBC | TGC, x: torch.Tensor, monkeypatch) -> list[str]:
    """The ways that a call of the layer runs, in order."""
    ran = []
    for name, way in list(WAYS.items()):
        monkeypatch.setitem(WAYS, name, lambda *args, name=name, way=way: (ran.append(name), way(*args))[1])
    layer(x)
    return ran


@pytest.mark.parametrize('way', WAYS)
def test_a_way_can_be_asked_for(way, monkeypatch):
    x = torch.randn(1, 8, 5, 5)
    with tied_convolution_way(way):
        assert calls(TBC(8, 8, 1), x, monkeypatch) == [way]


@pytest.mark.parametrize('way', WAYS)
def test_a_layer_can_have_a_way_of_its_own(way, monkeypatch):
    layer = TBC(8, 8, 1, way=way)
    with tied_convolution_way('grouped'):
        assert calls(layer, torch.randn(1, 8, 5, 5), monkeypatch) == [way]
    assert layer.explain(torch.randn(1, 8, 5, 5)) == f'{way}: asked for'


def test_a_way_that_cannot_be_gives_way_to_the_rule(monkeypatch):
    with tied_convolution_way('matmul'):
        assert calls(TBC(8, 8, 3, padding=1), torch.randn(1, 8, 5, 5), monkeypatch) == ['grouped']
    explained = TGC(8, 8, 3, groups=2, num_blocks=2, way='fold').explain(torch.randn(1, 8, 5, 5))
    assert explained.startswith('grouped: not fold as asked for, which cannot compute this layer; with groups')


def test_a_way_that_is_none_is_an_error_whenever_it_was_set():
    layer = TBC(8, 8, 1)
    layer.way = 'fastest'
    with pytest.raises(ValueError, match="way='fastest', expected one of 'auto'"):
        layer(torch.randn(1, 8, 5, 5))


@pytest.mark.parametrize('shape', [(1, 6, 5, 5), (1, 1, 8, 5, 5), (8, )])
def test_explain_takes_what_forward_takes(shape):
    layer = TBC(8, 8, 1)
    assert layer.explain(torch.randn(8, 5, 5)) == layer.explain(torch.randn(1, 8, 5, 5))
    with pytest.raises(ValueError, match='expected input of shape'):
        layer.explain(torch.randn(shape))


def test_the_choice_ends_with_its_block():
    layer, x = TBC(8, 8, 1), torch.randn(1, 8, 5, 5)
    with pytest.raises(KeyError), tied_convolution_way('dense'):
        assert layer.explain(x) == 'dense: asked for'
        raise KeyError
    assert layer.explain(x).startswith('fold')


@pytest.mark.parametrize('make', [lambda: TBC(8, 8, 1, way='fastest'), lambda: TGC(8, 8, 1, way=None),
                                  lambda: tied_convolution_way('cudnn').__enter__()])
def test_unknown_ways(make):
    with pytest.raises(ValueError, match=r"way=.*expected one of 'auto', 'measured', 'fold', 'grouped', 'matmul', 'dense'"):
        make()


class TestMeasured:
    """'measured' times every way once for each kind of call and keeps the fastest."""

    @pytest.fixture(autouse=True)
    def fresh(self):
        way_timing.forget_measurements()
        yield
        way_timing.forget_measurements()

    @pytest.mark.parametrize('fast', WAYS)
    def test_keeps_the_fastest(self, fast, monkeypatch):
        seconds = {way: 2.0 + index for index, way in enumerate(WAYS)}
        seconds[fast] = 1.0
        order = itertools.cycle(possible_ways(TBC(8, 8, 1).weight, TBC(8, 8, 1).geometry))
        monkeypatch.setattr(way_timing, '_time', lambda run, device: (run(), seconds[next(order)])[1])
        layer, x = TBC(8, 8, 1, way='measured'), torch.randn(2, 8, 5, 5)
        assert layer.explain(x).startswith(f'{fast}: measured: {fast} 1000.000 ms, ')
        assert calls(layer, x, monkeypatch) == [fast]

    def test_measures_once_for_each_kind_of_call(self, monkeypatch):
        timed = []
        monkeypatch.setattr(way_timing, '_time', lambda run, device: (timed.append(device), run(), 1.0)[2])
        layer, x = TBC(8, 8, 1, way='measured'), torch.randn(2, 8, 5, 5)
        layer(x)
        first = len(timed)
        assert first == 4 * way_timing.RUNS
        layer(x + 1)
        assert len(timed) == first
        for other in (x.to(memory_format=torch.channels_last), x[:1], x.double()):
            before = len(timed)
            layer.to(other.dtype)(other)
            assert len(timed) > before
        with torch.no_grad():
            before = len(timed)
            layer.float()(x)
            assert len(timed) > before

    def test_measuring_leaves_no_trace(self):
        layer = TBC(8, 8, 3, padding=1, way='measured')
        x = torch.randn(2, 8, 5, 5, requires_grad=True)
        state = torch.get_rng_state()
        y = layer(x)
        assert torch.equal(torch.get_rng_state(), state)
        assert x.grad is None
        assert layer.weight.grad is None
        y.sum().backward()
        torch.testing.assert_close(y, WAYS['grouped'](x, layer.weight, layer.bias, layer.geometry), atol=1e-6, rtol=1e-5)
        assert layer.weight.grad is not None

    def test_the_rule_serves_further_kinds_of_calls(self, monkeypatch):
        monkeypatch.setattr(way_timing, 'MOST_KINDS', 1)
        layer = TBC(8, 8, 1, way='measured')
        assert 'measured' in layer.explain(torch.randn(1, 8, 5, 5))
        assert layer.explain(torch.randn(2, 8, 5, 5)).startswith('fold: in contiguous')

    def test_torch_func_follows_the_rule(self):
        layer, x = TBC(8, 8, 1, way='measured'), torch.randn(2, 8, 5, 5)
        weights = {name: value.detach() for name, value in layer.named_parameters()}
        gradients = torch.func.grad(lambda weights: torch.func.functional_call(layer, weights, (x, )).sum())(weights)
        expected = torch.autograd.grad(WAYS['grouped'](x, layer.weight, layer.bias, layer.geometry).sum(), layer.weight)
        torch.testing.assert_close(gradients['weight'], expected[0], atol=1e-5, rtol=1e-5)

    def test_an_old_layer_without_a_way_follows_the_rule(self):
        layer = TBC(8, 8, 1)
        del layer.__dict__['way']
        assert layer.explain(torch.randn(1, 8, 5, 5)).startswith('fold')

    def test_an_empty_batch_follows_the_rule(self):
        assert TBC(8, 8, 1, way='measured').explain(torch.randn(0, 8, 5, 5)).startswith('fold')


@pytest.mark.parametrize('choice', CHOICES)
@pytest.mark.parametrize('memory_format', FORMATS)
def test_every_choice_compiles_as_one_graph(choice, memory_format):
    torch._dynamo.reset()
    layer = TBC(8, 8, 1, way=choice)
    x = torch.randn(2, 8, 5, 5).to(memory_format=FORMATS[memory_format])
    compiled = torch.compile(layer, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(x), layer(x), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('memory_format', FORMATS)
def test_inductor_trains_at_sizes_that_change(memory_format):
    """torch 2.13 cannot compile the gradient of a folded batch, and of strided products, for any height and width."""
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
    layer = TBC(8, 8, 1, way=choice)
    x = torch.randn(2, 8, 5, 5).to(memory_format=FORMATS[memory_format])
    with torch.autocast('cpu', torch.bfloat16), torch.set_grad_enabled(trains):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), atol=0.05, rtol=0.05)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('dynamo', [False, True])
@pytest.mark.parametrize('layer', [TBC(8, 12, 3, 2, num_blocks=4, padding=1, way='dense'), TGC(8, 12, 1, groups=2, way='dense')])
def test_no_way_exports_to_another_result(layer, dynamo, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    x = torch.randn(2, 8, 6, 5)
    torch.onnx.export(layer.eval(), (x, ), tmp_path / 'layer.onnx', input_names=['x'], dynamo=dynamo, verbose=False)
    got, = onnxruntime.InferenceSession(tmp_path / 'layer.onnx').run(None, {'x': x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('memory_format', FORMATS)
def test_traces_hold_convolutions(memory_format):
    x = torch.randn(2, 8, 5, 5).to(memory_format=FORMATS[memory_format])
    graph = str(torch.jit.trace(TBC(8, 8, 1), x).inlined_graph)
    assert 'aten::_convolution' in graph
    assert 'aten::linear' not in graph


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('way', WAYS)
def test_every_way_keeps_the_memory_format(way, stride, memory_format):
    x = torch.randn(2, 8, 6, 6).to(memory_format=FORMATS[memory_format])
    assert TBC(8, 12, 1, stride, way=way)(x).is_contiguous(memory_format=FORMATS[memory_format])


@pytest.mark.parametrize('stride', [1, 2])
def test_the_gradient_of_a_product_in_channels_last_is_in_channels_last(stride):
    x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    gradient, = torch.autograd.grad(TBC(8, 12, 1, stride, way='matmul')(x).square().sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
