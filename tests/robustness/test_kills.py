"""Trainings that are killed are resumed from the last whole checkpoint, and end as an unbroken one."""

import os
import subprocess
import sys
from pathlib import Path

CODE = Path(__file__).with_name('killed_trainings.py')


def test_killed_trainings_end_like_an_unbroken_one():
    """One kill at any time, one while a checkpoint is written, one while a report is; `killed_trainings.py 20` does more."""
    shown = subprocess.run([sys.executable, CODE, '3'], capture_output=True, text=True, check=False,
                           env={**os.environ, 'PYTHONPATH': str(CODE.parents[2]), 'OMP_NUM_THREADS': '1'})
    assert shown.returncode == 0, shown.stderr
    assert "'ended equal" in shown.stdout and "'report': 1" in shown.stdout
