"""The floors of blocks: their multiply-adds against torch's own counter, their traffic by hand, and a quick run."""

import importlib
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmtied.layers import tied_conv_algorithm


@pytest.mark.parametrize('network', ['ResNet-50', 'TiedResNet-50-S'])
def test_multiply_adds_are_those_of_torchs_counter(network):
    import floors
    from network_pairs import build
    block = build(network).layer2[1].eval()
    x = torch.randn(2, 512, 8, 8)
    with FlopCounterMode(display=False) as counter, tied_conv_algorithm('grouped'), torch.no_grad():
        block(x)
    assert sum(cost.macs for cost in floors.layer_costs(block, x)) == counter.get_total_flops() // 2


def test_traffic_by_hand():
    import floors
    block = nn.Sequential(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()).eval()
    convolution, norm, activation, addition = floors.layer_costs(block, torch.randn(2, 4, 5, 5))
    assert convolution == (2 * 25 * 8 * 4, 4 * (200 + 400 + 32), 3 * 4 * (200 + 400 + 32))
    assert norm == (0, 0, 8 * 1600)
    assert activation == (0, 0, 5 * 1600)
    assert addition == (0, 3 * 1600, 6 * 1600)


@pytest.mark.slow
def test_a_quick_run(tmp_path, monkeypatch, capsys):
    page = tmp_path / 'page.md'
    monkeypatch.setattr(sys, 'argv', ['floors', '--quick', '--docs', str(page)])
    importlib.import_module('floors').main()
    rows = [line for line in page.read_text().splitlines() if 'layer' in line]
    assert len(rows) == 12
    assert all(float(cell) >= 0 for row in rows for cell in row.split('|')[2:-1])
    assert rows[0] in capsys.readouterr().out
