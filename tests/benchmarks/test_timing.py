"""Turns, batch sizes, ratios and peak memory, against a simulated clock and counted bytes."""

import pytest
import torch


class Clock:
    """A clock that advances only when a contender runs."""

    def __init__(self):
        self.now, self.calls = 0., []

    def contender(self, name, costs):
        """Return a call that takes the listed seconds in order, then the last of them."""
        def call():
            self.calls.append(name)
            self.now += costs.pop(0) if len(costs) > 1 else costs[0]
        return call

    def __call__(self):
        return self.now


def test_contenders_alternate_after_warm_up():
    from timing import time_in_turns
    clock = Clock()
    contenders = {name: clock.contender(name, [cost]) for name, cost in (('a', 1.), ('b', 2.))}
    times = time_in_turns(contenders, 3, least_seconds=.5, warmups=2, clock=clock)
    assert ''.join(clock.calls) == 'aabb' + 'ab' * 3
    assert times.seconds == {'a': [1., 1., 1.], 'b': [2., 2., 2.]}


def test_warm_up_is_not_counted():
    from timing import time_in_turns
    clock = Clock()
    times = time_in_turns({'a': clock.contender('a', [50., 9., 1.])}, 2, least_seconds=.5, warmups=2, clock=clock)
    assert times.seconds == {'a': [1., 1.]}


def test_batches_last_min_seconds():
    from timing import time_in_turns
    clock = Clock()
    times = time_in_turns({'quick': clock.contender('q', [.0625]), 'slow': clock.contender('s', [3.])}, 2, least_seconds=1.,
                          warmups=1, clock=clock)
    assert times.seconds == {'quick': [.0625] * 2, 'slow': [3.] * 2}
    turns = ''.join(clock.calls).split('s')
    assert len(turns[-1]) == 0 and len(turns[-2]) >= 16  # 16 calls of 1/16 s


def test_zero_durations_terminate():
    from timing import time_in_turns
    clock = Clock()
    times = time_in_turns({'a': clock.contender('a', [0.] * 50 + [.5])}, 1, least_seconds=1., warmups=1, clock=clock)
    assert times.seconds == {'a': [.5]}


def test_ratios_are_computed_within_a_round():
    from timing import Spread, Times
    times = Times({'ours': [1., 10., 4.], 'other': [2., 10., 16.]})
    assert times.ratio('ours', to='other') == Spread(.5, .25, 1.)
    assert times.ratio('other', to='ours') == Spread(2., 1., 4.)
    assert times.rate('ours', items=20) == Spread(5., 2., 20.)
    assert times.spread('other', 1e3) == Spread(10e3, 2e3, 16e3)
    assert Spread(1.234, .5, 2.).text() == '1.23 [0.50, 2.00]'


def test_zero_repeats_are_rejected():
    from timing import time_in_turns
    with pytest.raises(ValueError, match='repeats=0 and warmups=2 must be 1 or more'):
        time_in_turns({}, 0)


def test_peak_memory_is_exact():
    from timing import peak_bytes, weight_bytes

    def call():
        first = torch.empty(10_000, dtype=torch.uint8)
        second = torch.empty(5_000, dtype=torch.uint8)
        del first
        return second, torch.empty(3_000, dtype=torch.uint8)

    assert peak_bytes(call) == peak_bytes(call) == 15_000
    assert peak_bytes(lambda: None) == 0
    assert weight_bytes(torch.nn.BatchNorm2d(3)) == 4 * 3 * 4 + 8  # weight, bias, mean, variance, and an int64


def test_peak_memory_of_a_training_step():
    """Weights, gradients and momentum take 4 bytes each; activations are small beside them."""
    from timing import Runner
    layer = torch.nn.Linear(500, 400, bias=False)
    runner = Runner(layer, torch.rand(2, 500))
    state = 4 * 500 * 400
    assert state <= runner.peak(runner.inference) < 1.1 * state
    assert 3 * state <= runner.peak(runner.training) < 5.1 * state


def test_cuda_graph_is_recorded_once_after_warm_up(monkeypatch):
    """With stand-ins for CUDA's streams and graphs."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    import timing
    calls, waits = [], []
    streams = [SimpleNamespace(wait_stream=lambda other, number=number: waits.append((number, calls.count('call'))))
               for number in range(2)]
    monkeypatch.setattr(torch.cuda, 'Stream', lambda: streams[1])
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda: streams[0])
    monkeypatch.setattr(torch.cuda, 'stream', nullcontext)
    monkeypatch.setattr(torch.cuda, 'CUDAGraph', lambda: SimpleNamespace(replay=lambda: calls.append('replay')))
    monkeypatch.setattr(torch.cuda, 'graph', lambda graph: nullcontext(calls.append('record')))
    replay = timing.cuda_graph(lambda: calls.append('call'), warmups=2)
    replay()
    assert calls == ['call', 'call', 'record', 'call', 'replay']
    assert waits == [(1, 0), (0, 2)]
