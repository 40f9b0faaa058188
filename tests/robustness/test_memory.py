"""Files that memory cannot hold are refused with the size that they need."""

import gc
import json
import resource
from pathlib import Path

import pytest

from mmtied.evaluation.inputs.coco_json import read_json
from mmtied.evaluation.inputs.content import free_memory, json_memory

DETECTION = dict(image_id=1234567, category_id=12, bbox=[123.456, 12.345, 123.45, 67.89], score=.123456789)
LAYOUTS = {'bbox': DETECTION,
           'segm': dict(image_id=1, category_id=1, score=.25, segmentation=dict(size=[480, 640], counts='x' * 300)),
           'polygon': dict(id=1, image_id=1, category_id=1, area=12.5, segmentation=[[float(x) + .125 for x in range(60)]])}


def used_memory(place):
    """Return the bytes of the address space (0) or of the memory (1) that this process has."""
    return int(Path('/proc/self/statm').read_text().split()[place]) * resource.getpagesize()


@pytest.fixture
def limit():
    """Return a function that limits the address space, as ``ulimit -v`` does, to some bytes more than are used."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    yield lambda more: resource.setrlimit(resource.RLIMIT_AS, (used_memory(0) + more, before[1]))
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_file_beyond_memory_is_refused_with_its_size(tmp_path, limit):
    path, one = tmp_path / 'found.json', json.dumps(DETECTION)
    path.write_text(f'[{(one + ",") * 299_999}{one}]')
    limit(120 << 20)
    with pytest.raises(ValueError, match=r'found.json: needs about 0\.[12] GB of memory to be read, and 0\.[01] GB are'):
        read_json(path)
    with path.open('wb') as file:
        file.truncate(70 << 20)
    limit(10 << 20)
    with pytest.raises(ValueError, match=r'found.json: needs about 0.1 GB of memory to be read, and 0.0 GB are free'):
        read_json(path)


def test_free_memory_is_what_the_limit_leaves(limit):
    assert free_memory() > 1 << 28
    limit(100 << 20)
    assert 90 << 20 < free_memory() < 110 << 20


@pytest.mark.parametrize('layout', LAYOUTS)
def test_estimated_memory(layout):
    """Within a third of what Python takes, as getsizeof of all parts has it."""
    entries = json.loads(json.dumps([LAYOUTS[layout]] * 2000))

    def size(value):
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return value.__sizeof__() + 16 * gc.is_tracked(value) + sum(map(size, parts))

    assert json_memory(json.dumps(entries).encode()) == pytest.approx(size(entries), rel=.34)
