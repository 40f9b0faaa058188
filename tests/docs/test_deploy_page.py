"""docs/deploy.md: snippets run, numbers are correct, and commands exist."""

import re

import pytest
import torch

from mmtied.analysis.complexity import count_parameters
from tests.helpers.pages import read_page, snippets

PAGE = read_page('deploy.md')


@pytest.mark.filterwarnings('ignore')
def test_snippets_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = snippets(PAGE)
    assert len(blocks) == 2
    names = {}
    for snippet in blocks:
        exec(snippet, names)
    assert [level.shape for level in names['levels']] == [(1, 256 * 2**i, 80 // 2**i, 64 // 2**i) for i in range(4)]
    counts = [(f'{count_parameters(model) / 1e6:.2f}M', len(list(model.modules()))) for model in
              (names['backbone'], names['deployed'])]
    said = re.search(r'has (\S+M) parameters in (\d+) modules; deployed, (\S+M) in (\d+)', PAGE)
    assert [(said[1], int(said[2])), (said[3], int(said[4]))] == counts
    torch.save(names['deployed'], 'backbone.pth')
    assert torch.load('backbone.pth', weights_only=False)(torch.rand(1, 3, 64, 64))[0].shape == (1, 256, 16, 16)
