"""Packaging: a single version, tested pins, and a wheel with the command, configs, tools and the model index."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from importlib.metadata import version as installed_version
from pathlib import Path

import modelindex
import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mmtied
from mmtied import compat

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'


SETS = ('onedl', 'openmmlab')
ADDRESS = 'https://git.example/people/mmtied'


def pins(*names):
    """Return the requirements in files of requirements/, without comments."""
    lines = [line for name in names for line in (REQUIREMENTS / f'{name}.txt').read_text().splitlines()]
    return {line for line in lines if line and not line.startswith('#')}


@pytest.fixture
def setup_script(monkeypatch):
    """Return a function that runs setup.py without building; it returns the script's names, and setup's arguments as 'setup'."""
    def run(repository=''):
        arguments = {}
        monkeypatch.setenv('MMTIED_REPOSITORY', repository)
        monkeypatch.setattr(setuptools, 'setup', lambda **given: arguments.update(given))
        names = runpy.run_path(str(ROOT / 'setup.py'))
        return {**names, 'setup': arguments}
    return run


@pytest.fixture(scope='session')
def sdist(tmp_path_factory):
    """Build the source distribution from a copy of the checkout and return its unpacked folder."""
    folder = tmp_path_factory.mktemp('sdist')
    ours = subprocess.run(['git', 'ls-files', '--cached', '--others', '--exclude-standard'], cwd=ROOT, text=True,
                          capture_output=True)
    if ours.returncode:
        pytest.skip('not a git checkout')
    for name in ours.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / 'source' / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / 'source' / name)
    code = f'import setuptools.build_meta as backend; print(backend.build_sdist({str(folder)!r}))'
    subprocess.run([sys.executable, '-c', code], cwd=folder / 'source', check=True, capture_output=True)
    with tarfile.open(next(folder.glob('mmtied-*.tar.gz'))) as archive:
        archive.extractall(folder, filter='data')
    return next(path for path in folder.glob('mmtied-*') if path.is_dir())


@pytest.fixture(scope='session')
def wheel(sdist, tmp_path_factory):
    """Build the wheel from the source distribution, as pip does."""
    folder = tmp_path_factory.mktemp('wheel')
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
                    '--wheel-dir', str(folder), str(sdist)], check=True, env={**os.environ, 'MMTIED_REPOSITORY': ADDRESS})
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='session')
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        return BytesParser().parsebytes(archive.read(name))


def files_under(folder):
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob('*')
            if path.is_file() and path.suffix != '.pyc'}


def test_wheel_contains_command_configs_tools_and_model_index(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        text = archive.read(f'mmtied-{mmtied.__version__}.dist-info/entry_points.txt').decode()
    expected = files_under('configs') | files_under('tools') | {'model-index.yml'}
    assert 'mmtied = mmtied.__main__:main' in text
    assert {name.removeprefix('mmtied/.mim/') for name in names if name.startswith('mmtied/.mim/')} == expected
    assert files_under('mmtied/evaluation') | files_under('mmtied/analysis') <= names
    assert {name.split('/')[0] for name in names} == {'mmtied', f'mmtied-{mmtied.__version__}.dist-info'}


def test_openmim_finds_configs_and_tools_in_the_wheel(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    # `mim train mmtied mask_rcnn_tiedr50_2x.py` looks up one config of that name and .mim/tools/train.py.
    assert len(list((tmp_path / 'mmtied').rglob('mask_rcnn_tiedr50_2x.py'))) == 1
    done = subprocess.run([sys.executable, str(tmp_path / 'mmtied/.mim/tools/train.py'), '-h'], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert '--launcher' in done.stdout and '--gpus' not in done.stdout  # mim passes --launcher, and --gpus if the help lists it


def test_sdist_is_complete(sdist):
    for name in ('LICENSE', 'CHANGELOG.md', 'model-index.yml', 'setup.py', 'pyproject.toml', 'requirements/onedl/mmcv.txt',
                 'configs/metafile.yml'):
        assert (sdist / name).is_file(), name
    assert not (sdist / 'mmtied' / '.mim').exists()


def test_single_version(metadata):
    assert metadata['Version'] == mmtied.__version__
    assert yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version'] == mmtied.__version__
    assert mmtied.__version__ in (ROOT / 'CHANGELOG.md').read_text()


def required(metadata):
    """Return the requirements of each extra and of the core, by package name."""
    found = {}
    for line in metadata.get_all('Requires-Dist'):
        text, _, marker = line.partition('; extra == ')
        requirement = Requirement(text)
        found.setdefault(marker.strip('"\'') or 'core', {})[canonicalize_name(requirement.name)] = requirement.specifier
    return found


def test_core_needs_no_openmmlab(metadata):
    assert set(required(metadata)['core']) == {'torch', 'numpy', 'pycocotools', 'orjson'}


def test_extras_are_ranges(metadata):
    for extra, ranges in required(metadata).items():
        assert not any(one.operator in ('==', '===') for specifier in ranges.values() for one in specifier), extra


@pytest.mark.parametrize('name', SETS)
def test_tested_releases_are_within_the_ranges(name, metadata):
    files = sorted((REQUIREMENTS / name).glob('*.txt'))
    tested = {}
    for line in pins(*(f'{name}/{path.stem}' for path in files if path.stem != 'python')):
        package, version = re.split('={2,3}', line)
        assert tested.setdefault(canonicalize_name(package), version) == version, f'{package} has two pins in {name}/'
    for extra in ('core', name, 'test'):
        for package, versions in required(metadata)[extra].items():
            if not (name == 'openmmlab' and package == 'onnxscript'):  # torch 2.1 exports ONNX without it
                assert tested[package] in versions, (extra, package)


def test_install_advice_names_the_tested_versions():
    advice = [pin for pins_of_package in compat.RELEASES.values() for pin in pins_of_package]
    for pin in pins(*(f'{name}/{part}' for name in SETS for part in ('mmcv', 'packages'))):
        assert pin in advice


def test_advice_names_extras_that_exist(metadata):
    assert set(compat._EXTRAS.values()) <= set(metadata.get_all('Provides-Extra'))


def test_package_page(metadata):
    page = metadata.get_payload()
    assert f'({ADDRESS}/raw/main/docs/images/demo.jpg)' in page
    assert f'({ADDRESS}/blob/main/docs/plug_in.md)' in page
    assert [link for link in re.findall(r'\]\(([^)]+)\)', page) if not link.startswith('https://')] == []
    assert metadata['Requires-Python'] == '>=3.10'
    assert metadata['License'] == 'Apache-2.0'
    assert all(line.split(', ')[1].startswith(ADDRESS) for line in metadata.get_all('Project-URL'))
    versions = {line.rpartition(' ')[2] for line in metadata.get_all('Classifier') if 'Python :: 3.' in line}
    assert versions == {'3.10', '3.11', '3.12'}


def test_package_page_without_an_address_has_no_dead_links(setup_script):
    arguments = setup_script()['setup']
    links = re.findall(r'\]\(([^)]+)\)', arguments['long_description'])
    assert links and all(link.startswith('https://') for link in links)
    assert not arguments['url'] and not arguments['project_urls']
    assert 'docs/plug_in.md' in arguments['long_description']  # the text of a link stays


def test_setup_script_runs_on_pythons_that_pip_refuses():
    tree = ast.parse((ROOT / 'setup.py').read_text(), feature_version=(3, 8))
    assert any(isinstance(line, ast.ImportFrom) and line.module == '__future__' for line in tree.body)


def test_editable_installation_without_symbolic_links_copies(setup_script, tmp_path, monkeypatch):
    names = setup_script()
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/a.py').touch()
    assert names['link'](tmp_path / 'configs', tmp_path / 'linked')
    assert (tmp_path / 'linked').readlink() == Path('configs')

    def refuse(*args, **kwargs):
        raise OSError('[WinError 1314] A required privilege is not held by the client')
    monkeypatch.setattr(Path, 'symlink_to', refuse)
    assert not names['link'](tmp_path / 'configs', tmp_path / 'other')
    names['copy'](tmp_path / 'configs', tmp_path / 'other')
    assert (tmp_path / 'other/a.py').is_file()


def test_model_index_is_valid_and_names_every_config_once():
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    assert index.check(silent=True) == []
    named = [model.config for model in index.models]
    files = [path for folder in ('configs', 'configs/imagenet', 'configs/cifar', 'configs/svhn')
             for path in (ROOT / folder).glob('*.py')]
    assert sorted(named) == sorted(str(path.relative_to(ROOT)) for path in files)


def test_model_index_has_no_unmeasured_results():
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    for model in index.models:
        assert model.weights is None
        for result in model.results or []:
            assert all('printed in the paper - not trained here' in metric for metric in result.metrics)


@pytest.mark.parametrize('extra', ['core', 'report'])
def test_set_up_installs_what_the_package_asks_for(extra, metadata):
    """The set-up installs mmtied without dependencies, so the pins must name each of them."""
    for name, ranges in required(metadata)[extra].items():
        assert installed_version(name) in ranges, name
