"""docs/performance.md: its snippet runs, and its table of rules matches the layers."""

import re

import pytest
import torch

from mmtied.layers import TBC
from tests.helpers.pages import read_page

PAGE = read_page('performance.md')


def test_snippet_prints_what_it_says(capsys):
    snippet = re.search(r'```python\n(.*?)```', PAGE, re.DOTALL)[1]
    exec(snippet, {})
    printed, = capsys.readouterr().out.splitlines()
    assert printed == re.search(r'print\(.*\)  # (.*)', snippet)[1]


@pytest.mark.parametrize(('row', 'layer', 'size', 'channels_last'), [
    (0, TBC(16, 16, 1), 20, True),
    (0, TBC(16, 16, 1, 2), 20, True),
    (1, TBC(128, 128, 3), 14, True),
    (2, TBC(128, 128, 3), 15, True),
    (2, TBC(64, 64, 3), 14, True),
    (3, TBC(16, 16, 1, 2), 20, False),
    (4, TBC(16, 16, 3), 20, False),
    (4, TBC(32, 32, 3, 2), 20, False),
    (5, TBC(32, 32, 3), 20, False),
    (5, TBC(12, 12, 3), 20, False),
    (5, TBC(16, 16, 1), 20, False),
])
def test_rules_are_the_layers(row, layer, size, channels_last):
    rules = re.findall(r'^\| (channels_last|contiguous) \| .* \| `(\w+)`', PAGE, re.MULTILINE)
    assert len(rules) == 6
    x = torch.rand(2, layer.in_channels, size, size)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    assert rules[row][0] == ('channels_last' if channels_last else 'contiguous')
    assert layer.describe_dispatch(x).startswith(f'{rules[row][1]}: ')
