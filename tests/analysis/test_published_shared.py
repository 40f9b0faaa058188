"""The printed figures of shared filter bases: against the specification's file, and within 0.5 % of what the networks count."""

import json
from pathlib import Path

import pytest
import yaml

import mmtied  # noqa: F401
from mmtied.analysis.complexity import Complexity
from mmtied.analysis.metafile import render_metafile
from mmtied.analysis.model_zoo import SYSTEMS, render_page
from mmtied.analysis.published import ATTENTION, NETWORKS
from mmtied.analysis.published_shared import SHARED_FILTER_BASES
from mmtied.analysis.systems import SystemSizes, measure_system

ROOT = Path(__file__).resolve().parents[2]
SPECIFICATION = ROOT.parent / 'shared/specs/published_tables.json'
NETWORK = {row.name: row for row in SHARED_FILTER_BASES.networks}


@pytest.fixture(scope='module')
def specification():
    if not SPECIFICATION.is_file():
        pytest.skip('needs the printed tables of the workplace')
    return json.loads(SPECIFICATION.read_text())['shared_filter_bases']


def test_printed_so(specification):
    for row in specification['table1_imagenet']:
        name = row['model'].replace('ResNet', 'ResNet-').replace(' (two bases)', ', two bases')
        assert (NETWORK[name].params, NETWORK[name].multiply_adds) == (row['params'], row['gflops'])
    printed = {(row.detector, row.backbone): row.params for row in SHARED_FILTER_BASES.detectors}
    names = {'ResNet50': 'ResNet-50', 'Shared': 'ResNet-50-Shared', 'Shared two bases': 'ResNet-50-Shared, two bases',
             'ResNet101': 'ResNet-101', 'ResNet101-Shared': 'ResNet-101-Shared'}
    for row in specification['table4_detectors_params']:
        for key, name in names.items():
            assert printed[row['detector'], name] == row[key]


@pytest.mark.slow
def test_counts_are_near_the_printed_ones():
    """To the printed digit, but for what the notes say."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpretrain')
    sizes = measure_system(SHARED_FILTER_BASES, ROOT / 'configs')
    for row in SHARED_FILTER_BASES.networks:
        millions = sizes.networks[row.name].parameters / 1e6
        if row.table == '3':
            assert int(100 * millions) == round(100 * row.params), row.name
        else:
            assert f'{millions:.2f}' == f'{row.params:.2f}', row.name
        if row.table == '1':
            assert sizes.networks[row.name].multiply_adds / 1e9 == pytest.approx(row.multiply_adds, rel=0.1), row.name
    for row in SHARED_FILTER_BASES.detectors:
        expected = 63.17 if row.params == 67.17 else row.params
        assert sizes.detectors[row.config] / 1e6 == pytest.approx(expected, rel=3e-4), row.config


def test_rows_and_entries():
    zero = {n.name: Complexity(10**7, 10**9) for n in NETWORKS}
    attention = {(row.network, row.module): 10**5 for row in ATTENTION}
    sizes = SystemSizes({row.name: Complexity(20_506_664, 4_089_000_000) for row in SHARED_FILTER_BASES.networks},
                        {row.config: 36_702_688 for row in SHARED_FILTER_BASES.detectors})
    systems = {SHARED_FILTER_BASES.title: sizes}
    page = render_page(zero, attention, ROOT / 'configs', systems)
    assert '## Shared Filter Bases\n' in page
    assert ('| ResNet-50-Shared | 1 | 20.51M | 20.51M | 0.0 % | 4.11G | 4.09G | -0.5 % | 23.64 | '
            '[sharedr50_in1k](../configs/imagenet/sharedr50_in1k.py) |') in page
    assert '| Faster R-CNN | ResNet-50-Shared | 4 | 36.7M | 36.70M | 0.0 % | 37.2 | - | [faster_rcnn_sharedr50_1x]' in page
    metafile = yaml.safe_load(render_metafile(zero, attention, ROOT / 'configs', systems))
    assert [collection['Name'] for collection in metafile['Collections']][2:] == [system.title for system in SYSTEMS][:1]
    entries = {model['Name']: model for model in metafile['Models'] if model['In Collection'] == 'Shared Filter Bases'}
    rows = (*SHARED_FILTER_BASES.networks, *SHARED_FILTER_BASES.detectors)
    assert set(entries) == {row.config.rpartition('/')[2] for row in rows}
    assert entries['sharedr50_in1k']['Metadata']['Parameters (M)'] == 20.51
