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


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
def test_scope_works_without_custom_imports(scope):
    """mmengine imports mmtied for a name with the scope; afterwards the bare name works too."""
    names = {'TiedResNet': 'MODELS', 'TBC': 'MODELS', 'OcclusionCocoMetric': 'METRICS', 'OcclusionEvalHook': 'HOOKS'}
    code = f'import sys, {scope}.registry as registries\nfound = ["mmtied" in sys.modules]\n'
    for name, registry in names.items():
        code += f'found += [registries.{registry}.get("mmtied.{name}").__name__, registries.{registry}.get("{name}").__name__]\n'
    assert run(code + 'print(found)') == str([False, *(name for name in names for _ in range(2))])


@pytest.mark.parametrize(('module', 'registers'), [('mine.train', True), ('mmtied', False)])
def test_only_the_command_leaves_registration_out(module, registers, tmp_path):
    """While python -m looks for its module, sys.argv[0] is -m for every package that is imported."""
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/__init__.py').write_text('import mmtied')
    (tmp_path / 'mine/train.py').write_text("import sys; print('mmtied.registry' in sys.modules)")
    done = subprocess.run([sys.executable, '-X', 'importtime', '-m', module], capture_output=True, text=True, check=True,
                          cwd=tmp_path)
    assert ('mmtied.registry' in done.stderr) == registers
    assert (done.stdout.strip() == 'True') == registers


def test_custom_imports_make_the_bare_name_work():
    assert run("from mmengine.config import Config\n"
               "from mmengine.registry import init_default_scope\n"
               "from mmdet.registry import MODELS\n"
               "Config(dict(custom_imports=dict(imports=['mmtied'])))\n"
               "cfg = Config.fromstring('custom_imports = dict(imports=[\"mmtied\"])', '.py')\n"
               "init_default_scope('mmdet')\n"
               "print(type(MODELS.build(dict(type='TiedResNet', depth=50))).__module__)") == 'mmtied.backbones.tied_resnet'


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
