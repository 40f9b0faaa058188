"""Pretend that other packages are installed."""

import pytest

from mmtied import compat


def only_installed(monkeypatch: pytest.MonkeyPatch, distribution: str) -> None:
    """Let `mmtied.compat` find this distribution of OpenMMLab's packages alone; none for ''."""
    monkeypatch.setattr(compat, 'installed_version', lambda name: '2.1.0' if name == distribution else None)
