"""docs/deploy.md: its snippets run, its numbers are counted, its commands are the tool's."""

import re
from pathlib import Path

import pytest
import torch

from mmtied.analysis.complexity import count_parameters

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/deploy.md').read_text()


@pytest.mark.filterwarnings('ignore')
def test_the_snippets_run_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    assert len(snippets) == 2
    names = {}
    for snippet in snippets:
        exec(snippet, names)
    assert [level.shape for level in names['levels']] == [(1, 256 * 2**i, 80 // 2**i, 64 // 2**i) for i in range(4)]
    counts = [(f'{count_parameters(model) / 1e6:.2f}M', len(list(model.modules()))) for model in
              (names['backbone'], names['deployed'])]
    said = re.search(r'has (\S+M) parameters in (\d+) modules; deployed, (\S+M) in (\d+)', PAGE)
    assert [(said[1], int(said[2])), (said[3], int(said[4]))] == counts
    torch.save(names['deployed'], 'backbone.pth')
    assert torch.load('backbone.pth', weights_only=False)(torch.rand(1, 3, 64, 64))[0].shape == (1, 256, 16, 16)


def test_the_commands_name_files_and_options_that_exist():
    tool = (ROOT / 'tools/deploy.py').read_text()
    commands = re.findall(r'^python (\S+) (\S+) CHECKPOINT\.pth \S+(.*)$', PAGE, re.MULTILINE)
    assert len(commands) == 2
    for path, config, options in commands:
        assert path == 'tools/deploy.py'
        assert (ROOT / config).is_file()
        assert all(f"'{option}'" in tool for option in re.findall(r'--[a-z-]+', options))
