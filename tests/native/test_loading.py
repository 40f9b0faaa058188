"""The optional compiled library: it loads, can be turned off, and is skipped if it does not load."""

import ast
import multiprocessing
import platform
import shutil
import subprocess
import sys
import sysconfig

import pytest
import torch

from mmtied import native
from mmtied.native import Codes, areas, library

needs_library = pytest.mark.skipif(platform.system() == 'Windows' or not shutil.which('g++'), reason='no g++')


@pytest.fixture(autouse=True)
def enabled(monkeypatch):
    monkeypatch.delenv('MMTIED_NATIVE', raising=False)
    native._load.cache_clear()
    yield
    native._load.cache_clear()


@pytest.fixture
def library_path(tmp_path, monkeypatch):
    """Load the library from a path in an empty folder."""
    monkeypatch.setattr(native, '__file__', str(tmp_path / '__init__.py'))
    return tmp_path / f'_run_lengths{sysconfig.get_config_var("EXT_SUFFIX")}'


@needs_library
def test_library_was_compiled():
    assert library() is not None


def test_environment_variable_disables_library(monkeypatch):
    monkeypatch.setenv('MMTIED_NATIVE', '0')
    assert library() is None


def test_missing_library_is_not_an_error(library_path):
    assert not library_path.exists()
    assert library() is None


@pytest.mark.parametrize('content', [b'', b'\x7fELF and no more'])
def test_broken_library_is_skipped_with_a_warning(library_path, content):
    library_path.write_bytes(content)
    with pytest.warns(RuntimeWarning, match='mmtied: cannot load the compiled library .*slower without it'):
        assert library() is None


def many_areas():
    """Return the areas of enough masks to use several threads."""
    return areas(Codes.of([b'132'] * 1000, torch.full((1000, ), 6).numpy())).tolist()


@needs_library
def test_forked_process_does_not_hang():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert many_areas() == [3] * 1000
        with multiprocessing.get_context('fork').Pool(1) as pool:
            assert pool.apply_async(many_areas).get(timeout=60) == [3] * 1000
    finally:
        torch.set_num_threads(threads)


@needs_library
def test_library_uses_torch_threads():
    """With two OpenMP runtimes in one process, their threads would compete for the cores."""
    code = ('import torch; torch.rand(400, 400) @ torch.rand(400, 400); from mmtied.native import library; library();'
            'print({line.split("/")[-1].strip() for line in open("/proc/self/maps") if "gomp" in line or "libomp" in line})')
    found = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True).stdout
    assert len(ast.literal_eval(found)) == 1, found
