"""Packaging: one version, one set of pins, and a wheel with configs, tools and the model index."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import modelindex
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mmtied
from mmtied import compat

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'


SETS = ('onedl', 'openmmlab')


def pins(*names):
    """Return the requirements in files of requirements/, without their comments."""
    lines = [line for name in names for line in (REQUIREMENTS / f'{name}.txt').read_text().splitlines()]
    return {line for line in lines if line and not line.startswith('#')}


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
                    '--wheel-dir', str(folder), str(sdist)], check=True)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='session')
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        return BytesParser().parsebytes(archive.read(name))


def files_under(folder):
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob('*')
            if path.is_file() and path.suffix != '.pyc'}


def test_wheel_contains_configs_tools_and_model_index(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = files_under('configs') | files_under('tools') | {'model-index.yml'}
    assert {name.removeprefix('mmtied/.mim/') for name in names if name.startswith('mmtied/.mim/')} == expected
    assert files_under('mmtied/evaluation') | files_under('mmtied/analysis') <= names
    assert {name.split('/')[0] for name in names} == {'mmtied', f'mmtied-{mmtied.__version__}.dist-info'}


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
    advice = ' '.join(compat._INSTALL.values())
    for pin in pins(*(f'{name}/{part}' for name in SETS for part in ('mmcv', 'packages'))):
        assert pin in advice


def test_model_index_is_valid_and_names_every_config_once():
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    assert index.check(silent=True) == []
    named = [model.config for model in index.models]
    files = [path for folder in ('configs', 'configs/imagenet', 'configs/cifar') for path in (ROOT / folder).glob('*.py')]
    assert sorted(named) == sorted(str(path.relative_to(ROOT)) for path in files)


def test_model_index_has_no_unmeasured_results():
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    for model in index.models:
        assert model.weights is None
        for result in model.results or []:
            assert all('printed in the paper - not trained here' in metric for metric in result.metrics)
