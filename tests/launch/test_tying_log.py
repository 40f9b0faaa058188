"""A Runner's log says how many convolutions of its model are tied."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from torch import nn

from mmtied.launch import runner
from mmtied.layers import TBC


@pytest.mark.parametrize(('model', 'expected'), [
    (nn.Sequential(nn.Conv2d(3, 8, 1), TBC(8, 8, 1), TBC(3, 8, 1, indivisible='untie')),
     ['Sequential: 1 of 3 convolutions are tied; TBC or TGC of one block: 1, other types: 1']),
    (nn.Sequential(nn.Conv2d(3, 8, 1)), []),
])
def test_build_runner_logs_tying(model, expected, monkeypatch):
    lines = []
    built = SimpleNamespace(model=model, logger=SimpleNamespace(info=lines.append))
    monkeypatch.setattr(runner.Runner, 'from_cfg', lambda cfg: built)
    assert runner.build_runner(Config()) is built
    assert lines == expected
