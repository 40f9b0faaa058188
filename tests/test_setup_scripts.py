"""Set-up scripts: the choice of Python, CUDA toolkit and wheel, and the error messages."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmtied.compat import installed_distribution

ROOT = Path(__file__).resolve().parents[1]
#: The pinned packages of this environment.
SET = ROOT / 'requirements' / ('onedl' if installed_distribution('onedl-') else 'openmmlab')
spec = importlib.util.spec_from_file_location('install_mmcv', ROOT / 'requirements' / 'install_mmcv.py')
install_mmcv = importlib.util.module_from_spec(spec)
spec.loader.exec_module(install_mmcv)


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)
    return path


def toolkit(home, release, headers=True):
    script(home / 'bin' / 'nvcc', f'echo "Cuda compilation tools, release {release}, V{release}.88"')
    if headers:
        (home / 'include').mkdir()
        (home / 'include' / 'cuda_runtime.h').touch()
    return home


def make_venv(venv, *wanted, versions='requirements/onedl/python.txt'):
    command = ['bash', 'requirements/make_venv.sh', str(venv), str(versions), *map(str, wanted)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True)


def test_old_python_is_rejected(tmp_path):
    old = script(tmp_path / 'python3.9', 'case "$1" in --version) echo Python 3.9.0;; *) exit 1;; esac')
    run = make_venv(tmp_path / 'venv', old)
    assert run.returncode == 2
    assert 'is Python 3.9.0; Python 3.11 or 3.12 with venv is needed' in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / 'venv').exists()


def test_keeps_environment_of_other_python(tmp_path):
    (tmp_path / 'venv').mkdir()
    (tmp_path / 'venv' / 'pyvenv.cfg').write_text('version = 3.8.1\n')
    run = make_venv(tmp_path / 'venv', sys.executable, versions=SET / 'python.txt')
    assert run.returncode == 2
    assert 'rm -rf' in run.stderr
    assert (tmp_path / 'venv' / 'pyvenv.cfg').read_text() == 'version = 3.8.1\n'


def test_chooses_first_complete_toolkit(tmp_path):
    homes = [tmp_path / 'missing', toolkit(tmp_path / 'old', '12.8'), toolkit(tmp_path / 'bare', '13.0', headers=False),
             toolkit(tmp_path / 'fits', '13.2')]
    home, reason = install_mmcv.choose_toolkit(homes, '13.0')
    assert home == tmp_path / 'fits'
    assert 'nvcc 13.2' in reason


def test_error_names_unsuitable_toolkits(tmp_path):
    home, reason = install_mmcv.choose_toolkit([toolkit(tmp_path / 'old', '12.8')], '13.0')
    assert home is None
    assert 'need nvcc 13.x' in reason
    assert f'nvcc in {tmp_path / "old"} is 12.8' in reason
    assert 'no CUDA toolkit' in install_mmcv.choose_toolkit([], '13.0')[1]


@pytest.mark.parametrize(('sees_gpu', 'force', 'uses_cuda'), [(False, '0', False), (False, '1', True), (True, '0', True)])
def test_cuda_operators_need_a_gpu_or_force_cuda(sees_gpu, force, uses_cuda, tmp_path, monkeypatch):
    torch = pytest.importorskip('torch')
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: sees_gpu)
    monkeypatch.setenv('CUDA_HOME', str(toolkit(tmp_path, '13.0')))
    monkeypatch.setenv('FORCE_CUDA', force)
    home, reason = install_mmcv.find_cuda()
    assert home == (tmp_path if uses_cuda else None)
    assert ('nvcc 13.0' if uses_cuda else 'sees no GPU') in reason


def test_missing_wheel_folder_raises(tmp_path):
    with pytest.raises(SystemExit, match='MMCV_WHEELS=.*nowhere is not a folder'):
        install_mmcv.take_wheel('onedl-mmcv==2.3.6', str(tmp_path / 'nowhere'))


def test_compiles_without_suitable_wheel(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(install_mmcv, 'WHEELS', tmp_path / 'wheels')
    (tmp_path / 'onedl_mmcv-2.3.6-cp27-cp27m-linux_x86_64.whl').touch()
    assert install_mmcv.take_wheel('onedl-mmcv==2.3.6', str(tmp_path)) is False
    assert 'has no wheel of onedl-mmcv==2.3.6' in capsys.readouterr().out


def test_missing_compiler_error_names_package(monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.raises(SystemExit, match=r'needs a C\+\+17 compiler.*apt-get install g\+\+'):
        install_mmcv.require_compiler()


def test_compilation_progress_is_shown_and_logged(tmp_path, capsys):
    speak = 'print("noise"); [print(f"  [{n}/7] c++ long command") for n in range(1, 8)]; raise SystemExit(3)'
    assert install_mmcv.follow([sys.executable, '-c', speak], None, tmp_path / 'log') == 3
    assert '7 of 7 files compiled' in capsys.readouterr().out
    assert len((tmp_path / 'log').read_text().splitlines()) == 8


def test_operators_require_pinned_version():
    pytest.importorskip('mmcv')
    requirement = install_mmcv.read_requirement(SET / 'mmcv.txt')
    compiled, _ = install_mmcv.run_operators(requirement)
    assert compiled.startswith('CPU')
    compiled, problem = install_mmcv.run_operators(f'{requirement.partition("==")[0]}==0.0.1')
    assert compiled is None
    assert 'AssertionError' in problem


@pytest.mark.skipif(not install_mmcv.is_gcc(), reason='precompiled headers are used with GCC only')
def test_precompiled_header_is_made_once_and_used(tmp_path):
    (tmp_path / 'pytorch_cpp_helper.hpp').write_text('#pragma once\ninline int twice(int x) { return SCALE * x; }\n')
    compiler = install_mmcv.write_compiler(tmp_path)
    made = []
    for name in ('one', 'two'):
        (tmp_path / f'{name}.cpp').write_text(f'#include "pytorch_cpp_helper.hpp"\nint {name}() {{ return twice(1); }}\n')
        run = subprocess.run([compiler, '-MMD', '-MF', f'{name}.d', f'-I{tmp_path}', '-DSCALE=2', '-O1', '-fPIC', '-H', '-c',
                              f'{name}.cpp', '-o', f'{name}.o', '-std=c++17'], cwd=tmp_path, check=True, text=True,
                             stderr=subprocess.PIPE)
        header = tmp_path / 'pytorch_cpp_helper.hpp.gch'
        # GCC's -H marks a precompiled header that it uses with an exclamation mark.
        assert any(line.startswith('! ') and line.endswith(header.name) for line in run.stderr.splitlines())
        made.append(header.stat().st_mtime_ns)
    assert made[0] == made[1]


@pytest.mark.skipif(not install_mmcv.is_gcc(), reason='precompiled headers are used with GCC only')
def test_header_that_does_not_precompile_is_left_to_the_source_file(tmp_path):
    (tmp_path / 'pytorch_cpp_helper.hpp').write_text('#ifndef FROM_SOURCE\n#error no\n#endif\n')
    (tmp_path / 'one.cpp').write_text('#define FROM_SOURCE\n#include "pytorch_cpp_helper.hpp"\nint one() { return 1; }\n')
    compiler = install_mmcv.write_compiler(tmp_path)
    for _ in range(2):
        subprocess.run([compiler, f'-I{tmp_path}', '-c', 'one.cpp', '-o', 'one.o'], cwd=tmp_path, check=True)
    assert (tmp_path / 'one.o').exists()
