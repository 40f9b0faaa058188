"""Read JSON files with orjson and the standard library: same objects, numbers and messages."""

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtied.evaluation.inputs.coco_json import box_column, read_json
from mmtied.evaluation.inputs.faults import Faults

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2**63, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@pytest.fixture(params=['orjson', 'json'])
def reader(request, monkeypatch):
    """Run with each parser; a module that is None in `sys.modules` cannot be imported."""
    if request.param == 'json':
        monkeypatch.setitem(sys.modules, 'orjson', None)
    else:
        pytest.importorskip('orjson')
    return request.param


@given(VALUES)
def test_orjson_reads_json_output(value):
    orjson = pytest.importorskip('orjson')
    assert repr(orjson.loads(json.dumps(value).encode('utf-8', 'surrogatepass'))) == repr(json.loads(json.dumps(value)))


@pytest.mark.parametrize(('content', 'value'), [
    (b'[NaN]', [math.nan]), (b'[-Infinity, 1e400]', [-math.inf, math.inf]),
    (b'\xef\xbb\xbf[1]', [1]), (b'["\\ud800"]', ['\ud800']),
    (b'[0.1, -0, 9007199254740993]', [.1, 0, 9007199254740993]),
])
def test_unusual_values(tmp_path, reader, content, value):
    path = tmp_path / 'values.json'
    path.write_bytes(content)
    assert repr(read_json(path)) == repr(value)


@pytest.mark.parametrize('content', [b'', b'[1, 2', b'{"a": }', b'\xff\xfe\x00', b'["\xe9"]'])
def test_both_readers_report_broken_files(tmp_path, monkeypatch, content):
    path, messages = tmp_path / 'values.json', []
    path.write_bytes(content)
    for without in (False, True):
        if without:
            monkeypatch.setitem(sys.modules, 'orjson', None)
        with pytest.raises(ValueError, match=r'values\.json: the file is ') as error:
            read_json(path)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize('last', [[np.float64(1), 2, 3, 4], (1, 2, 3, 4), np.array([1., 2, 3, 4])])
def test_boxes_of_any_number_type(last):
    boxes = [[1, 2, 3, 4], [.5, 1e-3, 2, 7], last]
    found = box_column([{'bbox': box} for box in boxes], 'xywh', np.ones((3, 2)), Faults('results', 3))
    assert found.dtype == np.float64
    assert found.tolist() == [list(map(float, box)) for box in boxes]


@pytest.mark.parametrize('bad', [[1, 2, 3], '1234', {1: 1, 2: 2, 3: 3, 4: 4}, [1, 2, 3, None], [1, 2, 3, math.nan],
                                 [1, 2, 3, '4'], [1, 2, 3, True],
                                 [1, 2, 3, 10**400], 5])
def test_invalid_boxes(bad):
    faults = Faults('results', 2)
    box_column([{'bbox': [0, 0, 1, 1]}, {'bbox': bad}], 'xywh', np.ones((2, 2)), faults)
    with pytest.raises(ValueError, match=r"results\[1\]: 'bbox' must be four finite numbers"):
        faults.settle()
