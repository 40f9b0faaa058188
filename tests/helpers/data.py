"""Larger real data sets that some tests read, found by the environment variable MMTIED_TEST_DATA."""

import os
from pathlib import Path

import pytest

VAL2017 = 'val2017/instances_val2017_rebuilt.json'
COCO128 = 'coco128/annotations/instances.json'


def data_path(name: str) -> Path:
    """Return a file or folder below $MMTIED_TEST_DATA; skip the test if it is missing (see CONTRIBUTING.md)."""
    folder = os.environ.get('MMTIED_TEST_DATA')
    if not folder:
        pytest.skip(f'set MMTIED_TEST_DATA to the folder that holds {name}')
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f'MMTIED_TEST_DATA={folder} has no {name}')
    return path
