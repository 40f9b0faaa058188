"""The build for AVX2, on processors that would take the other one by themselves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmtied.native import library

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(library() is None or torch.backends.cpu.get_cpu_capability() != 'AVX512',
                    reason='not compiled, or AVX2 is what the other tests run with')
def test_kernels_of_avx2():
    tests = [str(HERE / name) for name in ('test_thin_convolution.py', 'test_batch_norm.py')]
    done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', *tests], cwd=HERE.parents[1],
                          env=os.environ | {'ATEN_CPU_CAPABILITY': 'avx2'}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert ' passed' in done.stdout.splitlines()[-1] and 'skipped' not in done.stdout.splitlines()[-1]
