"""The public API: every form of input gives the same numbers; results print, plot and save."""

import json
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

import mmtied.evaluation
from mmtied.evaluation import (
    Bootstrap,
    ComparisonResult,
    Evaluation,
    EvaluationResult,
    compare,
    evaluate,
    register_occlusion_ratio,
)
from mmtied.evaluation.occlusion import OCCLUSION_RATIOS
from mmtied.evaluation.reporting import plots
from mmtied.evaluation.reporting.runs import read_runs
from mmtied.plotting import write_figure
from tests.helpers.coco_oracle import assert_same, coco_statistics
from tests.helpers.simulated import many, simulated

pytestmark = pytest.mark.usefixtures('blank_figures')
EDGES = (0, .3, .6, 1)


@pytest.fixture(scope='module')
def case():
    return many(num_images=48, per_image=10)


@pytest.fixture(scope='module')
def result(case):
    return evaluate(*case, Evaluation(edges=EDGES), bootstrap=Bootstrap(20), name='tied')


def by_image(data, results, kind):
    """Return the results as one dict per image."""
    entries = []
    for image in data['images']:
        here = [entry for entry in results if entry['image_id'] == image['id']]
        boxes = np.array([entry['bbox'] for entry in here]).reshape(-1, 4)
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        columns = dict(boxes=boxes, scores=np.array([entry['score'] for entry in here]),
                       labels=np.array([entry['category_id'] - 1 for entry in here], dtype=np.int64))
        entries.append(dict(image_id=image['id'], **{name: torch.from_numpy(column) if kind == 'tensors' else column
                                                     for name, column in columns.items()}))
    return entries


def test_evaluate_matches_pycocotools(case, result):
    assert_same(result.report['bbox']['all'], coco_statistics(*case, 'bbox'))


@pytest.mark.parametrize('annotations', ['file', 'dict', 'COCO', 'GroundTruth'])
@pytest.mark.parametrize('detections', ['file', 'files', 'list', 'tensors', 'arrays', 'mmdet dump'])
def test_input_forms_agree(tmp_path, case, result, annotations, detections):
    data, results = case
    (tmp_path / 'instances.json').write_text(json.dumps(data))
    (tmp_path / 'run.bbox.json').write_text(json.dumps(results))
    given = {'file': tmp_path / 'instances.json', 'dict': data, 'GroundTruth': result.ground_truth}.get(annotations)
    if annotations == 'COCO':
        given = COCO()
        given.dataset = data
    if detections == 'mmdet dump':
        found = tmp_path / 'run.pkl'
        found.write_bytes(pickle.dumps([
            dict(img_id=entry['image_id'], pred_instances={'bboxes': entry['boxes'], 'scores': entry['scores'],
                                                           'labels': entry['labels']})
            for entry in by_image(data, results, 'tensors')]))
    else:
        path = tmp_path / 'run.bbox.json'
        found = {'file': path, 'files': [path], 'list': results}.get(detections) or by_image(data, results, detections)
    ours = evaluate(given, found, Evaluation(edges=EDGES))
    assert isinstance(ours, EvaluationResult)
    for row, expected in zip(ours.rows(), result.rows(), strict=True):
        for name in ('name', 'images', 'instances', 'AP', 'AP50', 'AP75', 'AP_S', 'AP_shared'):
            assert row[name] == (pytest.approx(expected[name], rel=0, abs=1e-12) if isinstance(expected[name], float)
                                 else expected[name])
    assert ours.name == {'file': 'run', 'files': 'run', 'mmdet dump': 'run'}.get(detections, 'detector')
    assert ours.report.get('data') == ('instances.json' if annotations == 'file' else None)


def test_boolean_masks_match_run_length_codes():
    data, _ = many(num_images=4, per_image=4)
    for entry in data['annotations']:
        x, y, w, h = entry['bbox']
        entry['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    results = simulated(data, 'segm')
    from pycocotools import mask as mask_api
    images = [dict(image_id=image['id'],
                   scores=np.array([entry['score'] for entry in results if entry['image_id'] == image['id']]),
                   category_ids=np.array([entry['category_id'] for entry in results if entry['image_id'] == image['id']]),
                   masks=np.array([mask_api.decode(entry['segmentation']) for entry in results
                                   if entry['image_id'] == image['id']], dtype=bool)) for image in data['images']]
    ours, expected = (evaluate(data, found, Evaluation(edges=EDGES), iou_types='segm') for found in (images, results))
    assert ours.report == expected.report


def test_classes_and_several_evaluations(case):
    data, results = case
    ours = evaluate(data, results, [Evaluation(edges=EDGES), Evaluation(unit='instance', edges=(0, 1))], classes=['1', '2'])
    assert_same(ours.report['bbox']['all'], coco_statistics(data, results, 'bbox', category_ids=[2, 3]))
    assert [part['unit'] for part in ours.report['further']] == ['instance']


def test_rows_and_table(result, monkeypatch):
    rows = result.rows()
    assert [row['name'] for row in rows] == ['all', 'r=0', '(0,0.3)', '[0.3,0.6)', '[0.6,1]']
    assert rows[2]['AP'] == result.report['bbox']['buckets'][1]['AP']
    assert [rows[2]['AP_ci_low'], rows[2]['AP_ci_high']] == result.report['bbox']['buckets'][1]['AP_ci']
    import pandas

    pandas.testing.assert_frame_equal(result.table(), pandas.DataFrame(rows))
    monkeypatch.setitem(sys.modules, 'pandas', None)
    assert result.table() == rows


def test_repr_and_html_escape_names(result):
    lines = repr(result).splitlines()
    assert lines[0] == 'tied, bbox: AP in % by occlusion ratio r (covered)'
    assert lines[1].split()[:7] == ['r', 'images', 'instances', 'categories', 'AP', 'AP50', 'AP75']
    assert lines[3].split()[:2] == ['all', '48'] and f'{100 * result.report["bbox"]["all"]["AP"]:.1f}' in lines[3]
    page = replace(result, name='<script>alert(1)</script>')._repr_html_()
    assert '<script>' not in page and '&lt;script&gt;alert(1)&lt;/script&gt;' in page
    assert page.count('<tr>') == 12


def test_plot_and_save(tmp_path, result):
    from matplotlib.figure import Figure
    assert isinstance(result.plot(), Figure)
    names = {path.name for path in result.save(tmp_path / 'out')}
    assert names == {'records.npz', 'ap_over_r_bbox.png', 'report.html', 'buckets.tex', 'buckets.csv', 'categories.csv',
                     'report.json'}
    written = json.loads((tmp_path / 'out/report.json').read_text())
    assert written.pop('run') and written == result.report


@pytest.mark.parametrize(('format', 'start'), [('png', b'\x89PNG'), ('pdf', b'%PDF'), ('svg', b'<?xml')])
def test_plots_as_files(tmp_path, result, format, start, monkeypatch):
    monkeypatch.setattr(plots, 'write_figure', write_figure)  # not the blank one
    path, = [path for path in result.save(tmp_path, format=format) if path.name.startswith('ap_over_r')]
    assert path.name == f'ap_over_r_bbox.{format}' and path.read_bytes().startswith(start)
    result.plot(path=tmp_path / f'again.{format}')
    assert (tmp_path / f'again.{format}').read_bytes() == path.read_bytes()  # no dates in it
    if format == 'svg':
        assert 'tied: bbox AP by occlusion ratio r (covered)' in path.read_text()  # text, not outlines
    if format == 'pdf':
        assert b'/FontFile2' in path.read_bytes() and b'/Type3' not in path.read_bytes()  # an embedded TrueType font


def test_unknown_formats_are_refused(tmp_path, result):
    for wrong in (lambda: result.save(tmp_path / 'out', format='jpg'), lambda: result.plot(path=tmp_path / 'out.jpg'),
                  lambda: compare(result, result, bootstrap=Bootstrap(2)).save(tmp_path / 'out', format='jpg')):
        with pytest.raises(ValueError, match="^format: expected one of png, pdf, svg, got 'jpg'$"):
            wrong()
    assert not list(tmp_path.iterdir())


def test_empty_buckets_can_be_hidden(tmp_path, case):
    evaluation = [Evaluation(edges=(0, .3, .6, .9, 1)), Evaluation(edges=(0, .1, 1), unit='instance')]
    result = evaluate(*case, evaluation, name='a_b')
    held = [row['name'] for row in result.report['bbox']['buckets'] if row['instances']]
    assert 0 < len(held) < 5
    names = [label.get_text() for label in result.plot(hide_empty=True).axes[-1].get_xticklabels()]
    assert names == held
    result.save(tmp_path, hide_empty=True)
    written = json.loads((tmp_path / 'report.json').read_text())
    assert written.pop('run')  # its id, which the other files have too
    assert written == result.report
    assert (tmp_path / 'buckets.csv').read_text().count('[0.9,1]') == 1
    latex, page = (tmp_path / 'buckets.tex').read_text(), (tmp_path / 'report.html').read_text()
    assert '[0.9,1]' not in page + latex and r'a\_b, bbox: AP in \% by' in latex
    assert '[0.9,1]' in result.latex()
    found = compare(result, result, bootstrap=Bootstrap(2))
    assert '[0.9,1]' in found.text() and '[0.9,1]' not in found.text(hide_empty=True) + found.latex(hide_empty=True)
    assert [label.get_text() for label in found.plot(hide_empty=True).axes[0].get_xticklabels()] == held


def test_given_names_are_saved(tmp_path, case):
    for folder, name in (('x', 'R50 & co'), ('y', None)):
        result = evaluate(*case, Evaluation(edges=EDGES), name=name)
        result.save(tmp_path / folder / 'occlusion')
        assert result.report.get('name') == name
    folders = [tmp_path / folder / 'occlusion' for folder in 'xy']
    assert compare(*folders, bootstrap=Bootstrap(2)).report['runs'] == ['R50 & co', 'y']
    assert [run.name for run in read_runs(folders)] == ['R50 & co', 'y']
    assert compare(folders[0], folders[0], bootstrap=Bootstrap(2)).report['runs'] == ['x 1', 'x 2']
    assert compare(*folders, names=['a', 'b'], bootstrap=Bootstrap(2)).report['runs'] == ['a', 'b']


def test_compare_accepts_results_folders_and_records(tmp_path, case, result):
    data, results = case
    shifted = [dict(entry, bbox=[entry['bbox'][0] + 3, *entry['bbox'][1:]]) for entry in results]
    other = evaluate(data, shifted, Evaluation(edges=EDGES), name='shifted')
    other.save(tmp_path / 'shifted')
    found = compare(result, other, bootstrap=Bootstrap(20))
    assert isinstance(found, ComparisonResult)
    assert found.report['runs'] == ['tied', 'shifted']
    for given in (tmp_path / 'shifted', tmp_path / 'shifted/records.npz', other.saved_run()):
        assert compare(result, given, names=['tied', 'shifted'], bootstrap=Bootstrap(20)).report == found.report
    assert compare(tmp_path / 'shifted', tmp_path / 'shifted').report['runs'] == ['shifted 1', 'shifted 2']
    rows = found.rows()
    assert len(rows) == 5 * 3
    difference = rows[0]['value'] - rows[0]['baseline_value']
    assert rows[0]['difference'] == pytest.approx(difference, abs=1e-12) and difference < 0
    assert len(found.table()) == len(rows)
    assert repr(found).startswith('bbox AP in % by occlusion ratio r (covered): shifted - tied\nr ')
    assert found._repr_html_().count('<tr>') == 3 * 6
    plots = {f'difference_over_r_bbox_{name}.png' for name in ('AP', 'AP50', 'AP75')}
    names = {path.name for path in found.save(tmp_path / 'out')}
    assert names == {'comparison.json', 'comparison.csv', 'comparison.tex', *plots}


def test_comparison_plot(result):
    from matplotlib.figure import Figure
    assert isinstance(compare(result, result, bootstrap=Bootstrap(5)).plot('bbox'), Figure)


def test_registered_ratio(case):
    @register_occlusion_ratio('touched', 'the share of its instances that another box touches')
    def touched(boxes, masks):
        overlap, area = OCCLUSION_RATIOS['covered'].instance(boxes, masks)
        return (overlap > 0) & (area > 0), area > 0

    try:
        found = evaluate(*case, [Evaluation('touched', EDGES), Evaluation('touched', (0, 1), unit='instance')])
        assert found.report['definition'] == 'touched'
        counts = [row['instances'] for row in found.report['further'][0]['bbox']['buckets']]
        assert sum(counts) == found.report['bbox']['all']['instances']
        with pytest.raises(ValueError, match="'touched' is already registered"):
            register_occlusion_ratio('touched', '')(lambda boxes, masks: touched(boxes, masks))
        with pytest.raises(ValueError, match='is at most 1, got an edge of 2.0'):
            Evaluation('touched', (0, 2))
    finally:
        del OCCLUSION_RATIOS['touched']


def test_public_names():
    assert len(mmtied.evaluation.__all__) <= 25
    assert set(mmtied.evaluation.__all__) <= set(dir(mmtied.evaluation))
    for name in mmtied.evaluation.__all__:
        assert getattr(mmtied.evaluation, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        mmtied.evaluation.evalute  # noqa: B018


@pytest.mark.parametrize(('detections', 'message'), [
    (None, 'detections: expected a file, a list of files or a list of dicts'),
    ([dict(image_id=1)], r"\[0\] has no 'category_id'"),
])
def test_invalid_detections(case, detections, message):
    with pytest.raises(ValueError, match=message):
        evaluate(case[0], detections)


def test_pictures_need_detections(tmp_path, result):
    with pytest.raises(ValueError, match='this result has no detections to draw'):
        replace(result, detections=None).save(tmp_path, images=tmp_path)


def test_unusual_detections_warn_once(case, recwarn):
    data, results = case
    images = by_image(data, [*results, results[3]], 'arrays')
    images[0]['boxes'][0] = [9., 9., 5., 5.]
    evaluate(data, images, Evaluation(edges=EDGES))
    messages = [str(warning.message) for warning in recwarn if warning.category is UserWarning]
    assert [message.split(' of ')[0] for message in messages] == ['bbox: 1', 'bbox: predicted boxes']
    assert not any('\n' in message for message in messages)
    with pytest.warns(UserWarning, match='^bbox: there are no detections$'):
        evaluate(data, [], Evaluation(edges=EDGES))


@pytest.mark.parametrize(('key', 'message'), [
    ('mask', "unknown key 'mask'; did you mean 'masks'[?]"),
    ('score', "unknown key 'score'; did you mean 'scores'[?]"),
    ('keypoints', "unknown key 'keypoints'; known: image_id, boxes, scores, labels, category_ids, masks, text_labels"),
])
def test_unknown_key_of_an_image_is_an_error(case, key, message):
    images = by_image(*case, 'arrays')
    images[1][key] = images[1].pop('scores') if key == 'score' else 0
    with pytest.raises(ValueError, match=rf'^detections\[1\]: {message}$'):
        evaluate(case[0], images)


def test_bootstrap_is_a_switch_or_a_bootstrap(case):
    assert evaluate(*case, Evaluation(edges=EDGES), bootstrap=True).report['intervals'] == Bootstrap().describe()
    assert evaluate(*case, Evaluation(edges=EDGES), bootstrap=False).report['intervals'] is None
    with pytest.raises(ValueError, match='^bootstrap: expected True, False or a Bootstrap .* got 200$'):
        evaluate(*case, bootstrap=200)


def test_misuse_of_results_is_one_line(tmp_path, result):
    for wrong in ((result, result.report), ([result, result],)):
        with pytest.raises(ValueError, match=r'^compare: expected results of evaluate, .*\(first, second\), got (dict|list)$'):
            compare(*wrong)
    (tmp_path / 'file').write_text('')
    compared = compare(result, result, bootstrap=Bootstrap(2))
    for shown in (result, compared):
        with pytest.raises(ValueError, match="^plot: the result has no IoU type 'segm'; use one of bbox$"):
            shown.plot('segm')
        with pytest.raises(ValueError, match='^save: .*file is a file; use a folder$'):
            shown.save(tmp_path / 'file')


def test_lists_may_be_empty(case):
    data, results = case
    entries = by_image(data, [entry for entry in results if entry['image_id'] != data['images'][0]['id']], 'arrays')
    expected = evaluate(data, entries, Evaluation(edges=EDGES)).report
    lists = [{key: value if key == 'image_id' else value.tolist() for key, value in entry.items()} for entry in entries]
    assert lists[0]['boxes'] == lists[0]['scores'] == lists[0]['labels'] == []
    assert evaluate(data, lists, Evaluation(edges=EDGES)).report == expected


@pytest.mark.parametrize('masks', [np.full((1, 9, 9), .9), torch.full((1, 9, 9), .9), np.ones((1, 1, 9, 9), dtype=bool)])
def test_soft_masks_are_refused(masks):
    data = dict(images=[dict(id=1, height=9, width=9)], annotations=[], categories=[dict(id=1, name='cat')])
    entry = dict(image_id=1, scores=[.9], labels=[0], masks=masks)
    with pytest.raises(ValueError, match=r"'masks' must be boolean .* pass masks > 0.5, .* masks.squeeze\(1\)") as error:
        evaluate(data, [entry])
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('evaluations', ['covered', [Evaluation(), 'x'], 5, [dict(unit='instance')]])
def test_evaluations_of_the_wrong_type_are_named(case, evaluations):
    with pytest.raises(ValueError, match=r'evaluations: expected an Evaluation or a list.*, got ') as error:
        evaluate(*case, evaluations)
    assert '\n' not in str(error.value)
