"""docs/deploy.md: snippets run, numbers are correct, and commands exist."""

import re

import pytest
import torch

from mmtied.analysis.complexity import count_parameters
from mmtied.backbones import TiedResNet
from mmtied.surgery import deploy
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
    counts = [f'{count_parameters(names[name]) / 1e6:.2f}M' for name in ('backbone', 'deployed')]
    assert list(re.search(r'has (\S+M) parameters; deployed, (\S+M)\.', PAGE).groups()) == counts
    torch.save(names['deployed'], 'backbone.pth')
    assert torch.load('backbone.pth', weights_only=False)(torch.rand(1, 3, 64, 64))[0].shape == (1, 256, 16, 16)


def test_compile_block_runs(monkeypatch):
    """With torch.compile left out, which would take minutes: the settings, their order and the names are right."""
    block = re.search(r'## Compile\n+```\n(.*?)```', PAGE, re.DOTALL)[1]
    frozen = []
    monkeypatch.setattr(torch, 'compile', lambda model: frozen.append(torch._inductor.config.freezing) or model)
    backbone = TiedResNet(50, base_channels=16)
    names = dict(torch=torch, deploy=deploy, backbone=backbone, image=torch.rand(2, 3, 64, 64))
    with torch._inductor.config.patch(freezing=False):  # not monkeypatch: it would delete the setting afterwards
        exec(block, names)
    assert frozen == [True]
