"""A sample of the configs of benchmarks/plug_in.py, and the table of all of them in docs/."""

import csv
import importlib
from pathlib import Path

import pytest

pytest.importorskip('mmpretrain')
TABLE = Path(__file__).parents[2] / 'docs/benchmarks/plug_in.csv'


@pytest.fixture
def plug_in():
    return importlib.import_module('plug_in')


def find(plug_in, config: str, plugged: str):
    case, = (case for case in plug_in.CASES if config in case.config and case.plugged == plugged)
    return case


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('config', 'plugged'), [
    ('rtmdet/rtmdet_s_', 'TBC in the backbone'),
    ('mobilenet_v2/', 'TBC in the backbone'),
    ('retinanet/', 'TiedResNet-50'),
])
def test_a_config_works(plug_in, config, plugged):
    row = plug_in.try_case(find(plug_in, config, plugged))
    assert (row['loss'], row['predict'], row['reason']) == ('yes', 'yes', '')
    assert int(row['tied'].partition(' of ')[0]) > 10


@pytest.mark.filterwarnings('ignore')
def test_a_failure_has_a_reason(plug_in):
    row = plug_in.try_case(find(plug_in, 'tridentnet/', 'TiedResNet-50'))
    assert row['reason'].startswith('TypeError: TiedResNet: trident_dilations is not supported')
    assert (row['loss'], row['predict']) == ('no', 'no')


def test_the_table_has_all_configs(plug_in):
    with TABLE.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['config'], row['plugged']) for row in rows] == [(case.config, case.plugged) for case in plug_in.CASES]
    works = [row for row in rows if row['loss'] == row['predict'] == 'yes']
    assert len(works) >= 60
    assert all(row['reason'] for row in rows if row not in works)
