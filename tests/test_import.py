"""Importing mmtied: cost, registration, and scopes in configs."""

import subprocess
import sys

import pytest

from mmtied.compat import installed_distribution


def run(code: str) -> str:
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


def test_import_stays_light():
    """Importing mmtied imports neither mmdet, mmpretrain nor matplotlib."""
    heavy = run('import sys, mmtied; print([m for m in ("mmdet", "mmpretrain", "matplotlib") if m in sys.modules])')
    assert heavy == '[]'


SCOPE = """
import sys, {scope}.registry as registries
found = ["mmtied" in sys.modules]
for name, registry in {names}.items():
    found += [getattr(registries, registry).get(f"mmtied.{{name}}").__name__, getattr(registries, registry).get(name).__name__]
print(found)
"""
NAMES = {'TiedResNet': 'MODELS', 'TBC': 'MODELS', 'OcclusionCocoMetric': 'METRICS', 'OcclusionEvalHook': 'HOOKS'}
CUSTOM_IMPORTS = """
import sys
assert "mmtied" not in sys.modules
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmdet.registry import MODELS
Config(dict(custom_imports=dict(imports=['mmtied'])))
cfg = Config.fromstring('custom_imports = dict(imports=["mmtied"])', '.py')
init_default_scope('mmdet')
print(type(MODELS.build(dict(type='TiedResNet', depth=50))).__module__)
"""
#: Run each argument in a fork of a process with all common packages imported, but not mmtied, mmdet or mmpretrain.
FORK = """
import os, sys
import mmcv.cnn, mmcv.ops, mmengine.evaluator, mmengine.hooks, mmengine.runner, mmengine.visualization
import pycocotools.mask, scipy, torch, torchvision
assert not {"mmtied", "mmdet", "mmpretrain"} & sys.modules.keys()
for code in sys.argv[1:]:
    if not os.fork():
        exec(code, {})
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0
"""


def test_scopes_and_custom_imports():
    """mmengine imports mmtied for a scoped name; then the bare name works too, as it does with custom_imports."""
    scopes = [SCOPE.format(scope=scope, names=NAMES) for scope in ('mmdet', 'mmpretrain')]
    done = subprocess.run([sys.executable, '-c', FORK, *scopes, CUSTOM_IMPORTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stdout.splitlines() if 'OneDL' not in line]
    names = str([False, *(name for name in NAMES for _ in range(2))])
    assert found == [names, names, 'mmtied.backbones.tied_resnet']


@pytest.mark.parametrize(('module', 'registers'), [('mine.train', True), ('mmtied', False)])
def test_only_the_command_leaves_registration_out(module, registers, tmp_path):
    """While python -m looks for its module, sys.argv[0] is -m in every package that it imports."""
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/__init__.py').write_text('import mmtied')
    (tmp_path / 'mine/train.py').write_text("import sys; print('mmtied.registry' in sys.modules)")
    done = subprocess.run([sys.executable, '-X', 'importtime', '-m', module], capture_output=True, text=True, check=True,
                          cwd=tmp_path)
    assert ('mmtied.registry' in done.stderr) == registers
    assert (done.stdout.strip() == 'True') == registers


def test_missing_package_error_names_package(run_without_openmmlab):
    printed = run_without_openmmlab(
        'from mmtied.compat import require\n'
        'try: require("mmdet", "TiedResNet")\n'
        'except ImportError as error: print(error)')
    detection = 'onedl-mmdetection==3.5.1' if installed_distribution('onedl-') else 'mmdet==3.3.0'
    assert printed.strip() == (f'TiedResNet needs mmdet, which is not installed: pip install {detection}, '
                               'or run make setup in the repository, which installs everything')


def test_registration_can_be_switched_off(monkeypatch):
    monkeypatch.setenv('MMTIED_REGISTER', '0')
    assert run('import sys, mmtied; print([m for m in ("torch", "mmengine", "mmcv") if m in sys.modules])') == '[]'
