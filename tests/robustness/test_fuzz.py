"""A short run of the fuzzer, and everything that it ever found."""

import json
from pathlib import Path

import pytest

from tests.robustness.fuzz import CORPUS, run, try_example

FOUND = sorted(CORPUS.glob('*.json'))


def test_fuzzer_finds_nothing():
    done, _, faults = run(minutes=5, most=150, seed=1, blank=True)
    assert not faults, [(fault['tool'], fault['arguments'], fault['fault']) for fault in faults[:3]]
    assert done >= 100


@pytest.mark.parametrize('path', FOUND, ids=[path.stem for path in FOUND])
def test_what_was_found(path: Path):
    assert try_example(json.loads(path.read_text())) is None
