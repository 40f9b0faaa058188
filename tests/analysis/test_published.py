"""Check the printed figures in mmtied.analysis.published against copies typed independently from the papers."""

import json

import pytest

from mmtied.analysis.published import PAPERS, load_paper, load_papers
from tests.helpers.published import DATA, printed_tables

PRINTED = json.loads((DATA / 'tied_block_convolution_rows.json').read_text())
TIED = load_paper('tied_block_convolution')
BY_NAME = {network.name: network for network in TIED.networks}


def in_table(rows, table: str) -> list:
    return [row for row in rows if table in row.tables.split(', ')]


def test_top_5():
    """Of Tables 1, 3, 5 and 6, spot checks of rows that are in more than one table or re-trained."""
    assert {name: BY_NAME[name].top5 for name in ('ResNet-50', 'TiedResNet-50', 'TiedSENet-101', 'EfficientNet-B0')} == {
        'ResNet-50': 92.9, 'TiedResNet-50': 93.6, 'TiedSENet-101': 94.8, 'EfficientNet-B0': 93.3}
    assert [BY_NAME[f'TiedResNet-50 {setting}'].top5 for setting in ('2s48w', '6s24w', '8s18w')] == [93.53, 93.66, 93.54]


def test_table_1():
    ours = {(n.name, n.params, n.multiply_adds, n.top1) for n in in_table(TIED.networks, '1')}
    assert ours == {tuple(row) for row in PRINTED['table 1']}
    for name, top1 in PRINTED['table 1, re-trained'].items():
        assert str(top1) in BY_NAME[name].note


def test_table_2():
    assert {(d.backbone, d.mask_ap) for d in in_table(TIED.detectors, '2')} == {tuple(row) for row in PRINTED['table 2']}
    assert {(d.detector, d.dataset, d.box_ap) for d in in_table(TIED.detectors, '2')} == {('Mask R-CNN', 'Cityscapes', None)}


def test_table_3():
    ours = {(a.network, a.module, a.params) for a in in_table(TIED.attention, '3')}
    assert ours == {(network, module, params) for network, module, params, _ in PRINTED['table 3']}
    accuracies = {(n.name, n.top1) for n in in_table(TIED.networks, '3')}
    assert accuracies == {(network if module == 'SE' else f'{network}, {module}', top1)
                          for network, module, _, top1 in PRINTED['table 3']}
    assert {name: BY_NAME[name].params for name in PRINTED['table 3, totals']} == PRINTED['table 3, totals']
    for name, top1 in PRINTED['table 3, re-trained'].items():
        assert str(top1) in BY_NAME[name].note


def test_table_4():
    modules = {f'ResNet-50 + {a.module}': a.params for a in in_table(TIED.attention, '4')}
    rows = in_table(TIED.detectors, '4')
    baseline, = (d for d in rows if d.backbone == 'ResNet-50')
    assert [baseline.box_ap, baseline.box_ap50, baseline.mask_ap, baseline.mask_ap50] == PRINTED['table 4, baseline']
    rows.remove(baseline)
    for schedule in ('1x', '2x'):
        ours = {(d.backbone, modules[d.backbone], d.box_ap, d.mask_ap) for d in rows if d.schedule == schedule}
        assert ours == {(f'ResNet-50 + {module}', *figures) for module, *figures in PRINTED['table 4']}
        ours = {(d.backbone, d.box_ap50, d.mask_ap50) for d in rows if d.schedule == schedule}
        assert ours == {(f'ResNet-50 + {module}', *figures) for module, *figures in PRINTED['table 4, AP50']}


@pytest.mark.parametrize('table', ['5', '6'])
def test_tables_5_and_6(table):
    """TiedResNet-50 is printed with 77.6 in Table 1."""
    ours = {n.name: n for n in in_table(TIED.networks, table)}
    assert set(ours) == {row[0] for row in PRINTED[f'table {table}']}
    for name, params, *multiply_adds, top1 in PRINTED[f'table {table}']:
        assert ours[name].params == params
        assert not multiply_adds or [ours[name].multiply_adds] == multiply_adds
        assert ours[name].top1 == (round(top1, 1) if name == 'TiedResNet-50' else top1)


def test_table_a1():
    ours = {(d.detector, d.backbone, d.schedule, d.box_ap) for d in in_table(TIED.detectors, 'A.1')}
    assert ours == {tuple(row) for row in PRINTED['table A.1']}
    assert {d.mask_ap for d in in_table(TIED.detectors, 'A.1')} == {None}


def test_table_a2():
    ours = {(d.detector, d.backbone, d.schedule, d.box_ap, d.mask_ap) for d in in_table(TIED.detectors, 'A.2')}
    assert ours == {tuple(row) for row in PRINTED['table A.2']}


@pytest.mark.parametrize('table', ['A.1', 'A.2'])
def test_sizes_of_objects(table):
    ours = [[d.detector, d.backbone, d.schedule, d.box_sizes, d.mask_sizes] for d in in_table(TIED.detectors, table)]
    assert sorted(ours, key=str) == sorted(PRINTED[f'table {table}, sizes'], key=str)


@pytest.mark.parametrize('paper', load_papers(), ids=lambda paper: paper.title)
def test_rows_outside_tables_have_no_figures(paper):
    for network in paper.networks:
        assert network.tables or (network.params, network.multiply_adds, network.top1, network.error) == (None, ) * 4
    for detector in paper.detectors:
        assert detector.tables or (detector.params, detector.box_ap, detector.mask_ap) == (None, ) * 3


@pytest.mark.parametrize('paper', load_papers(), ids=lambda paper: paper.title)
def test_rows_are_unique(paper):
    names = [network.name for network in paper.networks]
    configs = [detector.config for detector in paper.detectors]
    assert len(set(names)) == len(names)
    assert len(set(configs)) == len(configs)
    assert {row.network for row in paper.attention} <= {*names, 'ResNet-50'}


def test_papers_are_read_once():
    assert load_papers() is load_papers()
    assert [paper.title for paper in load_papers()] == [load_paper(name).title for name in PAPERS]


def test_both_copies_agree():
    theirs = printed_tables('tied_block_convolution')
    assert [[r['model'], r['params'], r['gflops'], r['top1']] for r in theirs['table1_imagenet']] == PRINTED['table 1']
    assert [[r['backbone'], r['ap_mask']] for r in theirs['table2_cityscapes_mask_rcnn']] == PRINTED['table 2']
    assert [r['params'] for r in theirs['table3_tied_se']] == [row[2] for row in PRINTED['table 3']]
    assert [[r['params'], r['ap_bbox'], r['ap_mask']] for r in theirs['table4_tied_gcb']] == [r[1:] for r in PRINTED['table 4']]
    assert [[r['params'], r['gflops'], r['top1']] for r in theirs['table5_splits']] == [row[1:] for row in PRINTED['table 5']]
    assert [[r['params'], r['top1']] for r in theirs['table6_mixer']] == [row[1:] for row in PRINTED['table 6']]


def test_shared_filter_bases():
    printed, paper = printed_tables('shared_filter_bases'), load_paper('shared_filter_bases')
    networks = {network.name: network for network in paper.networks}
    for row in printed['table1_imagenet']:
        name = row['model'].replace('ResNet', 'ResNet-').replace(' (two bases)', ', two bases')
        assert (networks[name].params, networks[name].multiply_adds) == (row['params'], row['gflops'])
    params = {(row.detector, row.backbone): row.params for row in paper.detectors}
    names = {'ResNet50': 'ResNet-50', 'Shared': 'ResNet-50-Shared', 'Shared two bases': 'ResNet-50-Shared, two bases',
             'ResNet101': 'ResNet-101', 'ResNet101-Shared': 'ResNet-101-Shared'}
    for row in printed['table4_detectors_params']:
        for key, name in names.items():
            assert params[row['detector'], name] == row[key]


def test_interleaved_group_convolution():
    printed = printed_tables('interleaved_group_convolutions')
    networks = {network.name: network for network in load_paper('interleaved_group_convolution').networks}
    table = printed['table3_cifar_params']
    for name in ('RegConv-W16', 'RegConv-W18', 'IGC-L4M8', 'IGC-L24M2'):
        for depth, params in zip(table['depth'], table[name], strict=True):
            assert networks[f'{name}, depth {depth}'].params == params
    for row in printed['table6_imagenet']:
        network = networks[row['model'].replace('+', ' + ')]
        assert (network.params, network.multiply_adds) == (row['params'], row['gflops'])


RELATED = json.loads((DATA / 'related_rows.json').read_text())


@pytest.mark.parametrize('table', ['4', '5'])
def test_errors_and_deviations_on_cifar(table):
    networks = {network.name: network for network in load_paper('interleaved_group_convolution').networks}
    for data, rows in RELATED[f'interleaved, table {table}'].items():
        for name, depths in rows.items():
            for depth, (accuracy, deviation) in depths.items():
                ours = networks[f'{name}, depth {depth}' + (' (CIFAR-100)' if data == 'CIFAR-100' else '')]
                assert (ours.error, ours.deviation) == (pytest.approx(100 - accuracy), deviation)
                assert table in ours.tables and ours.classes == int(data.rpartition('-')[2])


def test_training_errors():
    networks = {network.name: network for network in load_paper('interleaved_group_convolution').networks}
    for name, figures in RELATED['interleaved, table 6, training and test errors'].items():
        ours = networks[name]
        assert [ours.training_error, ours.training_error_top5, ours.error, ours.error_top5] == figures


@pytest.mark.parametrize('table', ['3', '4', '6'])
def test_groupable_tables(table):
    """Baselines have the figures of Table 2, which differ from Table 3's in top-1."""
    rows = [network for network in load_paper('groupable_convolution').networks if table in network.tables.split(', ')]
    names = {'ResNet200(depth) 1x64d': 'ResNet-200 (1x64d)', 'ResNet101(wider[8]) 1x100d': 'ResNet-101 (1x100d)'}
    by_name = {network.name: network for network in rows}
    for name, setting, *share, top1, top5 in RELATED[f'groupable, table {table}']:
        bound = setting.removeprefix('learnedby').replace('=', ' = ')
        name = name.replace('(card.)', '').replace('ResNeXt', 'ResNeXt-')
        ours = by_name.pop(names.get(f'{name} {setting}') or (f'{name}, {bound}' if 'b =' in bound else f'{name}-{setting}'))
        assert ours.error_top5 == pytest.approx(100 - top5)
        assert share in ([], [ours.grouped_share])
        if setting != '32x4d':
            assert ours.error == pytest.approx(100 - top1)
    assert not by_name


def test_groupable_convolution():
    networks = {network.name: network for network in load_paper('groupable_convolution').networks}
    names = {'ResNeXt50': 'ResNeXt-50-32x4d', 'ResNeXt101': 'ResNeXt-101-32x4d', 'G-ResNeXt50 (b=32)': 'G-ResNeXt-50, b = 32',
             'G-ResNeXt101 (b=32)': 'G-ResNeXt-101, b = 32'}
    for row in printed_tables('groupable_convnet')['table2_imagenet']:
        ours = networks[names[row['model']]]
        assert round(ours.params) == row['params']
        if 'top1' in row:
            assert ours.error == pytest.approx(100 - row['top1'])


def test_shared_bases_print_top_5_and_ap_by_size():
    """Rows of Tables 1, 4 and 5, typed from the paper's text."""
    shared = load_paper('shared_filter_bases')
    top5 = {network.name: network.error_top5 for network in in_table(shared.networks, '1')}
    assert (top5['ResNet-34'], top5['ResNet-50-Shared-All'], top5['MobileNetV2-Shared, two bases']) == (8.58, 7.41, 9.85)
    assert None not in top5.values()
    rows = {row.config: row for row in shared.detectors}
    mask = rows['mask_rcnn_sharedr50_1x']
    assert (mask.box_ap50, mask.box_ap75, mask.box_sizes) == (58.4, 41.4, [22.4, 41.2, 49.2])
    assert (mask.mask_ap50, mask.mask_ap75, mask.mask_sizes) == (55.4, 36.9, [18.9, 37.7, 46.5])
    assert rows['retinanet_sharedr101_1x'].box_sizes == [21.2, 41.5, 49.5]
    assert all(row.box_ap75 and row.box_sizes for row in shared.detectors)
