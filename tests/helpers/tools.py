"""Run the scripts in tools/ in this process, which saves their imports."""

import os
import resource
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

ROOT = Path(__file__).parents[2]


def run_in_process(tool: str, arguments: tuple, monkeypatch: pytest.MonkeyPatch,
                   capfd: pytest.CaptureFixture) -> tuple[int, str, str]:
    """Run a tool and return exit code, stdout and stderr; the environment variables that it sets are put back."""
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    capfd.readouterr()
    code = 0
    try:
        with mock.patch.dict(os.environ):
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capfd.readouterr()


def run_script(script: Path | str, arguments: Sequence, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script that is not a tool in this process; an exit code other than 0 fails."""
    monkeypatch.setattr(sys, 'argv', [str(script), *map(str, arguments)])
    try:
        with mock.patch.dict(os.environ):
            runpy.run_path(str(script), run_name='__main__')
    except SystemExit as stop:
        assert not stop.code


def run_on_full_disk(run: Callable[[], Any], size: int) -> Any:
    """Call a function while no file can be longer than `size` bytes, as under ``ulimit -f``; return what it returns."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        return run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
