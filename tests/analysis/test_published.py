"""Every figure in mmtied.analysis.published against a second copy, typed row by row from the paper."""

import json
from pathlib import Path

import pytest

from mmtied.analysis.published import ATTENTION, DETECTORS, NETWORKS

PRINTED = json.loads((Path(__file__).parent / 'printed_rows.json').read_text())
SPECIFICATION = Path(__file__).resolve().parents[3] / 'shared/specs/published_tables.json'
BY_NAME = {network.name: network for network in NETWORKS}


def in_table(rows, table: str) -> list:
    return [row for row in rows if table in getattr(row, 'tables', getattr(row, 'table', '')).split(', ')]


def test_table_1():
    ours = {(n.name, n.params, n.multiply_adds, n.top1) for n in in_table(NETWORKS, '1')}
    assert ours == {tuple(row) for row in PRINTED['table 1']}
    for name, top1 in PRINTED['table 1, re-trained'].items():
        assert str(top1) in BY_NAME[name].note


def test_table_2():
    assert {(d.backbone, d.mask_ap) for d in in_table(DETECTORS, '2')} == {tuple(row) for row in PRINTED['table 2']}
    assert {(d.detector, d.dataset, d.box_ap) for d in in_table(DETECTORS, '2')} == {('Mask R-CNN', 'Cityscapes', None)}


def test_table_3():
    ours = {(a.network, a.module, a.params) for a in in_table(ATTENTION, '3')}
    assert ours == {(network, module, params) for network, module, params, _ in PRINTED['table 3']}
    accuracies = {(n.name, n.top1) for n in in_table(NETWORKS, '3')}
    assert accuracies == {(network if module == 'SE' else f'{network}, {module}', top1)
                          for network, module, _, top1 in PRINTED['table 3']}
    assert {name: BY_NAME[name].params for name in PRINTED['table 3, totals']} == PRINTED['table 3, totals']
    for name, top1 in PRINTED['table 3, re-trained'].items():
        assert str(top1) in BY_NAME[name].note


def test_table_4():
    modules = {f'ResNet-50 + {a.module}': a.params for a in in_table(ATTENTION, '4')}
    ours = {(d.backbone, modules[d.backbone], d.box_ap, d.mask_ap) for d in in_table(DETECTORS, '4')}
    assert ours == {(f'ResNet-50 + {module}', *figures) for module, *figures in PRINTED['table 4']}


@pytest.mark.parametrize('table', ['5', '6'])
def test_tables_5_and_6(table):
    """TiedResNet-50 is printed with 77.6 in Table 1."""
    ours = {n.name: n for n in in_table(NETWORKS, table)}
    assert set(ours) == {row[0] for row in PRINTED[f'table {table}']}
    for name, params, *multiply_adds, top1 in PRINTED[f'table {table}']:
        assert ours[name].params == params
        assert not multiply_adds or [ours[name].multiply_adds] == multiply_adds
        assert ours[name].top1 == (round(top1, 1) if name == 'TiedResNet-50' else top1)


def test_table_a1():
    ours = {(d.detector, d.backbone, d.schedule, d.box_ap) for d in in_table(DETECTORS, 'A.1')}
    assert ours == {tuple(row) for row in PRINTED['table A.1']}
    assert {d.mask_ap for d in in_table(DETECTORS, 'A.1')} == {None}


def test_table_a2():
    ours = {(d.detector, d.backbone, d.schedule, d.box_ap, d.mask_ap) for d in in_table(DETECTORS, 'A.2')}
    assert ours == {tuple(row) for row in PRINTED['table A.2']}


def test_what_is_in_no_table_has_no_figures():
    for network in NETWORKS:
        assert network.tables or (network.params, network.multiply_adds, network.top1) == (None, None, None)
    for detector in DETECTORS:
        assert detector.table or (detector.box_ap, detector.mask_ap) == (None, None)


def test_the_copy_is_the_specifications():
    if not SPECIFICATION.is_file():
        pytest.skip('needs the printed tables of the workplace')
    theirs = json.loads(SPECIFICATION.read_text())['tied_block_convolution']
    assert [[r['model'], r['params'], r['gflops'], r['top1']] for r in theirs['table1_imagenet']] == PRINTED['table 1']
    assert [[r['backbone'], r['ap_mask']] for r in theirs['table2_cityscapes_mask_rcnn']] == PRINTED['table 2']
    assert [r['params'] for r in theirs['table3_tied_se']] == [row[2] for row in PRINTED['table 3']]
    assert [[r['params'], r['ap_bbox'], r['ap_mask']] for r in theirs['table4_tied_gcb']] == [r[1:] for r in PRINTED['table 4']]
    assert [[r['params'], r['gflops'], r['top1']] for r in theirs['table5_splits']] == [row[1:] for row in PRINTED['table 5']]
    assert [[r['params'], r['top1']] for r in theirs['table6_mixer']] == [row[1:] for row in PRINTED['table 6']]
