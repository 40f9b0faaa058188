"""Run the scripts in tools/ in this process, which saves their imports."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_in_process(tool: str, arguments: tuple, monkeypatch: pytest.MonkeyPatch,
                   capfd: pytest.CaptureFixture) -> tuple[int, str, str]:
    """Run a tool and return exit code, stdout and stderr."""
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    capfd.readouterr()
    code = 0
    try:
        runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capfd.readouterr()
