"""Run tools/model_table.py with counting replaced; tests/analysis covers counting."""

import importlib.util
from pathlib import Path

import model_zoo_page
import pytest

from mmtied.analysis.complexity import Complexity

TOOL = Path(__file__).parents[2] / 'tools/model_table.py'


@pytest.fixture
def tool(tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    spec = importlib.util.spec_from_file_location('model_table', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(model_zoo_page, 'measure_paper', lambda paper, configs: model_zoo_page.Sizes(
        {n.name: Complexity(10**7, 10**9) for n in paper.networks}, {n.name: 10**7 for n in paper.networks},
        {(a.network, a.module): 10**5 for a in paper.attention}, {d.config: 10**7 for d in paper.detectors}))
    return module


def test_write_then_check(tool, tmp_path, capsys):
    assert tool.main(['--check']) == 1
    assert capsys.readouterr().err.splitlines() == ['docs/model_zoo.md is stale; run python tools/model_table.py',
                                                    'configs/metafile.yml is stale; run python tools/model_table.py']
    assert list(tmp_path.iterdir()) == []
    assert tool.main([]) == 0
    assert capsys.readouterr().out == 'wrote docs/model_zoo.md\nwrote configs/metafile.yml\n'
    assert tool.main(['--check']) == 0
    assert capsys.readouterr().out == 'docs/model_zoo.md and configs/metafile.yml are up to date\n'
    page = tmp_path / 'docs/model_zoo.md'
    page.write_text(page.read_text().replace('10.00M', '9.99M'))
    assert tool.main(['--check']) == 1
    assert capsys.readouterr().err == 'docs/model_zoo.md is stale; run python tools/model_table.py\n'
