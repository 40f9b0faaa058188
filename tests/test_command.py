"""The command `mmtied`: sub-commands, start-up time, and messages for missing packages."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmtied import compat
from mmtied.__main__ import COMMANDS, main
from tests.helpers.packages import only_installed

ROOT = Path(__file__).parents[1]
BOX = [0., 0., 4., 4.]
DATA = dict(images=[dict(id=1, height=10, width=10)], categories=[dict(id=1, name='a')],
            annotations=[dict(id=1, image_id=1, category_id=1, bbox=BOX, area=16, iscrowd=0)])

#: Run commands in one process, then print their exit codes and the large packages imported.
RUN = """
import sys
sys.argv = ['mmtied']
from mmtied.__main__ import main
for arguments in {commands}:
    sys.argv = ['mmtied', *arguments]
    try:
        main()
    except SystemExit as stop:
        print('exit code', stop.code)
print(sorted({{'torch', 'mmengine', 'mmcv', 'matplotlib', 'PIL'}} & set(sys.modules)))
"""

#: Hide all packages except mmtied's requirements and their dependencies.
ONLY_REQUIRED = """
import re, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from importlib.metadata import PackageNotFoundError, distribution

def name_of(requirement):
    return re.match(r'[\\w.-]+', requirement)[0].lower().replace('_', '-')

needed, new, visible = set(), {'torch', 'numpy', 'pycocotools', 'orjson'}, {'mmtied', *sys.stdlib_module_names}
while new:
    name = new.pop()
    needed.add(name)
    try:
        found = distribution(name)
    except PackageNotFoundError:
        continue
    new |= {name_of(line) for line in found.requires or () if 'extra ==' not in line} - needed
    visible |= {file.parts[0].partition('.')[0] for file in found.files or ()}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return super().find_spec(name, path, target) if path is not None or name in visible else None

sys.meta_path = [BuiltinImporter, FrozenImporter, Finder]
"""


def run_python(code, *arguments, **settings):
    done = subprocess.run([sys.executable, '-c', code, *arguments], capture_output=True, text=True, cwd=ROOT, **settings)
    assert done.returncode == 0, done.stderr
    return done


def test_help_of_every_command_imports_nothing_large():
    commands = [['--help'], *([name, '--help'] for name in COMMANDS)]
    lines = run_python(RUN.format(commands=commands)).stdout.splitlines()
    assert lines[-1] == '[]'
    assert lines.count('exit code 0') == len(commands)
    for name in COMMANDS:
        assert any(line.startswith(f'usage: mmtied {name} ') for line in lines), name


@pytest.mark.parametrize('script', sorted(path.name for path in (ROOT / 'tools').glob('*.py')))
def test_help_of_every_script_imports_nothing_large(script):
    done = subprocess.run([sys.executable, '-X', 'importtime', f'tools/{script}', '--help'], capture_output=True, text=True,
                          cwd=ROOT)
    imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and done.stdout.startswith(f'usage: {script}')
    assert not {'torch', 'mmengine', 'mmcv', 'matplotlib'} & imported


def test_module_reports_unknown_command_at_once():
    done = subprocess.run([sys.executable, '-X', 'importtime', '-m', 'mmtied', 'compere'], capture_output=True, text=True,
                          cwd=ROOT)
    *imports, last = done.stderr.splitlines()
    assert (done.returncode, last) == (2, "error: mmtied: no command 'compere'; did you mean compare?")
    assert not {'torch', 'mmengine'} & {line.split('|')[-1].strip() for line in imports}


def test_every_script_has_a_command():
    scripts = {path.stem for path in (ROOT / 'tools').glob('*.py')}
    assert {script for script, _ in COMMANDS.values()} == scripts


def test_version_describes_the_installation(capsys):
    main(['--version'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('mmtied 0.')
    assert 'native library' in lines[0]
    assert lines[1].startswith(f'Python {sys.version.split()[0]}, ')
    assert any(line.startswith(f'torch: {torch.__version__}, ') for line in lines)
    assert any(line.startswith('pycocotools: pycocotools 2') for line in lines)


def test_models_are_registered_for_commands_that_run_configs():
    pytest.importorskip('mmdet')
    code = ("import sys; sys.argv = ['mmtied', 'train']\nimport mmtied.launch\nfrom mmengine.registry import MODELS\n"
            "print(MODELS.get('TiedResNet').__module__)")
    assert run_python(code).stdout.strip() == 'mmtied.backbones.tied_resnet'


def test_required_packages_alone_evaluate_to_a_table(tmp_path):
    files = {'data.json': DATA, 'results.json': [dict(image_id=1, category_id=1, score=.5, bbox=BOX)]}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    data, results = (str(tmp_path / name) for name in files)
    commands = [['eval', data, results], ['eval', data, results, '--out', str(tmp_path / 'out')], ['stats', data],
                ['stats', data, '--out', str(tmp_path / 'out')], ['shapes', str(tmp_path / 'out')],
                ['report', str(tmp_path / 'page.html'), str(tmp_path)], ['train', 'config.py'], ['test', 'config.py', 'a.pth'],
                ['deploy', 'config.py', 'a.pth', 'out.pt'], ['convert', 'a.pth', 'b.pth'], ['demo'],
                ['browse', data, str(tmp_path), '--out', str(tmp_path / 'out')]]
    done = run_python(ONLY_REQUIRED + RUN.format(commands=commands))
    assert re.search(r'^all +1 +1 +1 +100.0 ', done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.count('exit code None\n') == 2  # the two tables
    assert done.stdout.count('exit code 2\n') == len(commands) - 2
    report, extra = 'needs matplotlib, which is not installed', "pip install 'mmtied[report]'"  # torch requires jinja2
    advice = f'pip install {compat.release("mmengine")} {compat.release("mmcv")}'
    runs = f'error: Running a config needs mmengine and mmcv, which are not installed: {advice}, or run make setup'
    expected = [f'error: The report that --out writes {report}: {extra}',
                f'error: The plot that --out writes needs matplotlib, which is not installed: {extra}',
                "error: Drawing shapes needs cv2, which is not installed: pip install 'mmtied[shapes]'",
                f'error: The report page {report}: {extra}', runs, runs, runs, runs,
                'error: The demo needs mmengine, mmcv, mmdet, cv2 and matplotlib, which are not installed: pip install',
                f'error: Drawing needs PIL, which is not installed: {extra}']
    lines = done.stderr.splitlines()
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize(('installed', 'advised'), [
    ('', 'onedl-mmdetection==3.5.1'), ('onedl-mmcv', 'onedl-mmdetection==3.5.1'), ('mmcv-lite', 'mmdet==3.3.0')])
def test_missing_packages_are_named_at_once_with_their_extras(monkeypatch, installed, advised):
    only_installed(monkeypatch, installed)
    monkeypatch.setattr(compat, 'find_spec', lambda name: None if name in ('jinja2', 'cv2', 'mmdet') else name)
    with pytest.raises(ImportError) as caught:
        compat.require(['torch', 'jinja2', 'cv2', 'mmdet'], 'The demo')
    assert str(caught.value) == (
        f"The demo needs jinja2, cv2 and mmdet, which are not installed: pip install {advised} 'mmtied[report,"
        "shapes]', or run make setup in the repository, which installs everything")
    compat.require('torch', 'nothing')
