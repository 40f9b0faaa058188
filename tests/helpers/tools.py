"""Run the scripts in tools/ in this process, which saves their imports."""

import os
import runpy
import sys
from pathlib import Path
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
