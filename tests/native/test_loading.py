"""Where a compiler is at hand, set-up has compiled the C++ code; a variable turns it off, and what does not fit is left alone."""

import ast
import multiprocessing
import platform
import shutil
import subprocess
import sys
import sysconfig

import pytest
import torch

from mmtied.native import builds, library, loading
from mmtied.native.run_lengths import Codes, areas


def can_compile():
    """Whether g++ knows this processor's target."""
    target = builds.BUILDS.get(torch.backends.cpu.get_cpu_capability())
    if not target or not shutil.which('g++') or (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
        return False
    return subprocess.run(['g++', *target, '-E', '-x', 'c++', '/dev/null'], capture_output=True).returncode == 0


needs_compiler = pytest.mark.skipif(not can_compile(), reason='no g++, or another processor')


@pytest.fixture(autouse=True)
def turned_on(monkeypatch):
    monkeypatch.delenv('MMTIED_NATIVE', raising=False)
    loading._load.cache_clear()
    yield
    loading._load.cache_clear()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder of its own for the compiled library; returns the library's path there."""
    name = f'_{torch.backends.cpu.get_cpu_capability().lower()}{sysconfig.get_config_var("EXT_SUFFIX")}'
    monkeypatch.setattr(loading, '__file__', str(tmp_path / 'loading.py'))
    return tmp_path / name


@needs_compiler
def test_the_library_was_compiled():
    assert library() is not None


def test_a_variable_turns_it_off(monkeypatch):
    monkeypatch.setenv('MMTIED_NATIVE', '0')
    assert library() is None


def test_none_is_no_error(elsewhere):
    assert not elsewhere.exists()
    assert library() is None


@needs_compiler
def test_one_of_other_code_is_not_used(monkeypatch):
    monkeypatch.setattr(loading, 'fingerprint', lambda: 'another')
    with pytest.warns(RuntimeWarning, match='was compiled from other code; going on without it'):
        assert library() is None


@needs_compiler
def test_an_installed_one_without_its_sources_is_used(monkeypatch):
    monkeypatch.setattr(loading, 'fingerprint', lambda: None)
    assert library() is not None


@pytest.mark.parametrize('content', [b'', b'\x7fELF and no more'])
def test_a_broken_one_is_not_used(elsewhere, content):
    elsewhere.write_bytes(content)
    with pytest.warns(RuntimeWarning, match='cannot be loaded .*; going on without it'):
        assert library() is None


def test_the_fingerprint_changes_with_the_sources(tmp_path, monkeypatch):
    for name in ('builds.py', *builds.SOURCES, *builds.HEADERS):
        (tmp_path / name).write_bytes((builds.Path(builds.__file__).parent / name).read_bytes())
    before = builds.fingerprint()
    monkeypatch.setattr(builds, '__file__', str(tmp_path / 'builds.py'))
    assert builds.fingerprint() == before
    (tmp_path / builds.SOURCES[-1]).write_text('// changed')
    assert builds.fingerprint() not in (None, before)
    (tmp_path / builds.SOURCES[0]).unlink()
    assert builds.fingerprint() is None


def measured():
    """The areas of masks, enough of them for several threads."""
    return areas(Codes.of([b'132'] * 1000, torch.full((1000, ), 6).numpy())).tolist()


@needs_compiler
def test_a_forked_process_does_not_wait_for_its_parents_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert measured() == [3] * 1000
        with multiprocessing.get_context('fork').Pool(1) as pool:
            assert pool.apply_async(measured).get(timeout=60) == [3] * 1000
    finally:
        torch.set_num_threads(threads)


@needs_compiler
def test_it_shares_its_threads_with_torch():
    """Two OpenMP runtimes in one process would each keep threads of their own, which fight for the cores."""
    code = ('import torch; torch.rand(400, 400) @ torch.rand(400, 400); from mmtied.native import library; library();'
            'print({line.split("/")[-1].strip() for line in open("/proc/self/maps") if "gomp" in line or "libomp" in line})')
    found = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True).stdout
    assert len(ast.literal_eval(found)) == 1, found
