"""Where a compiler is at hand, set-up has compiled the C++ code; a variable turns it off."""

import os
import platform
import shutil
import subprocess
import sys

import pytest
import torch

from mmtied.native import library
from mmtied.native.builds import BUILDS

CAN_COMPILE = (shutil.which('g++') and platform.machine() == 'x86_64' and platform.system() == 'Linux'
               and torch.backends.cpu.get_cpu_capability() in BUILDS)


@pytest.mark.skipif(not CAN_COMPILE, reason='no g++, or another processor')
def test_the_library_was_compiled():
    assert library() is not None


def test_a_variable_turns_it_off(monkeypatch):
    monkeypatch.setenv('MMTIED_NATIVE', '0')
    assert library() is None


@pytest.mark.skipif(not CAN_COMPILE, reason='no g++, or another processor')
def test_it_shares_its_threads_with_torch():
    """Two OpenMP runtimes in one process would each keep threads of their own, which fight for the cores."""
    code = ('import torch; torch.rand(400, 400) @ torch.rand(400, 400); from mmtied.native import library; library();'
            'print({line.split("/")[-1].strip() for line in open("/proc/self/maps") if "gomp" in line or "libomp" in line})')
    found = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True, env=os.environ).stdout
    assert len(eval(found)) == 1, found  # noqa: S307
