"""Numbers that would pass as others, polygons, ratios at an edge, and messages that stay short; each through the whole tool."""

import gzip
import json
import os

import numpy as np
import pytest

from mmtied.cli import LONGEST, user_errors
from mmtied.evaluation import Evaluation, evaluate, read_ground_truth
from mmtied.evaluation.buckets import make_buckets
from mmtied.evaluation.inputs.coco_json import read_json
from mmtied.evaluation.occlusion import occlusion_ratio
from mmtied.tables import write_csv
from tests.helpers.tools import run_in_process

SQUARE = [0, 0, 10, 0, 10, 10, 0, 10]


def annotations(image=None, category=None, **entry):
    """Return two annotations of one image, with changes to the image, the category or the second annotation."""
    boxes = [dict(id=number, image_id=1, category_id=1, bbox=[5 * number, 0, 10, 10], area=100, iscrowd=0) for number in (1, 2)]
    boxes[1].update(entry)
    return dict(images=[dict(dict(id=1, height=100, width=100, file_name='a.png'), **(image or {}))], annotations=boxes,
                categories=[dict(dict(id=1, name='cat'), **(category or {}))])


def result(**changes):
    return [dict(image_id=1, category_id=1, bbox=[5, 0, 10, 10], score=.9),
            dict(dict(image_id=1, category_id=1, bbox=[10, 0, 10, 10], score=.5), **changes)]


@pytest.fixture
def tool(tmp_path, monkeypatch, capfd):
    """Return a function that evaluates values, or the text of files, and returns exit code, stdout and stderr."""
    def run(truth, found, *options):
        for name, value in (('truth.json', truth), ('found.json', found)):
            (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value))
        return run_in_process('occlusion_eval.py', (tmp_path / 'truth.json', tmp_path / 'found.json', '--replicates', '0',
                              *options), monkeypatch, capfd)

    return run


def assert_refused(outcome, *words):
    """One line, not too long, that says these words; no output, no traceback."""
    code, out, err = outcome
    assert code == 2 and out == '' and err.startswith('error: ') and err.count('\n') == 1 and len(err) <= LONGEST + 1, err
    assert all(word in err for word in words), err


def test_message_of_several_entries_keeps_their_places(tool):
    assert_refused(tool(annotations(), result()[1:] + result(category_id=99)[1:] * 5),
                   'found.json[1]: category id 99 is not in the annotation file',
                   '6 entries cannot be used, such as [1], [2], [3]; --skip-invalid (skip_invalid=True) leaves them out')


POLYGONS = [([[0, 0, float('nan'), 0, 9, 9]], 'nan'), ([[0, 0, 1e7, 0, 9, 9]], '10000000.0'),
            ([[0, 0, -1e7, 0, 9, 9]], '-10000000.0'),
            ([[*SQUARE, 3]], 'the polygon [0, 0, 10, 0'), ([[0, 0, 9, 9]], 'the polygon [0, 0, 9, 9]'),
            ([['0', '0', '9', '0', '9', '9']], "the polygon ['0', '0'"), ([[True, 0, 9, 0, 9, 9]], 'the polygon [True, 0'),
            ([[None] * 6], 'the polygon [None, None'), ([SQUARE, []], 'the polygon []'),
            ([{'size': [9, 9]}], 'neither polygons')]


@pytest.mark.parametrize(('polygon', 'word'), POLYGONS)
def test_polygons(tool, polygon, word):
    good = annotations(segmentation=[SQUARE])
    good['annotations'][0]['segmentation'] = [SQUARE]
    bad = json.loads(json.dumps(good))
    bad['annotations'][1]['segmentation'] = polygon
    masks = [dict(entry, segmentation=[SQUARE]) for entry in result()]
    assert_refused(tool(bad, masks, '--iou-type', 'segm'), 'truth.json: annotation 2: ', word)
    masks[1]['segmentation'] = polygon
    assert_refused(tool(good, masks, '--iou-type', 'segm'), 'found.json[1]: ', word)


@pytest.mark.parametrize('counts', [[True, 9999], [-1, 10001], [0.5, 9999.5], [0, 10001], ['0', 10000], [2**40, 0]])
def test_run_lengths(tool, counts):
    assert_refused(tool(annotations(), [dict(entry, segmentation=dict(size=[100, 100], counts=counts)) for entry in result()]),
                   'found.json[0]: its run-length code is broken')


@pytest.mark.parametrize(('truth', 'word'), [
    (annotations(id=2**63), "annotations[1]: 'id' must be an integer, got 9223372036854775808 (below 2**63)"),
    (annotations(id=2**64), "annotations[1]: 'id' must be an integer, got 1.8446744073709552e+19"),
    (annotations(id=True), "annotations[1]: 'id' must be an integer, got True"),
    (annotations(bbox=[True, 0, 9, 9]), "annotations[1]: 'bbox' must be four finite numbers"),
    (annotations(bbox=[0, 0, 1e200, 1]), "annotations[1]: 'bbox' must have numbers of at most 1e+15 in size"),
    (annotations(area=True), "annotations[1]: 'area' must be a finite number, got True"),
    (annotations(category_id=True), "annotations[1]: 'category_id' must be an integer, got True"),
    (annotations(category_id=2**63), "annotations[1]: 'category_id' must be an integer"),
    (annotations(image_id=True), 'annotations[1]: the image id must be an integer id or a file name, got True'),
    (annotations(image=dict(height=True)), "images[0]: 'height' must be an integer, got True"),
    (annotations(image=dict(height=2**31)), "images[0]: 'height' and 'width' must be from 1 to 2147483647"),
    (annotations(category=dict(id=2**63)), "categories[0]: 'id' must be an integer, got 9223372036854775808 (below 2**63)"),
])
def test_numbers_of_annotations(tool, truth, word):
    assert_refused(tool(truth, result()), word)


def test_id_of_a_category_names_the_wrong_entry(tool):
    truth = annotations()
    truth['categories'].append(dict(id='x', name='dog'))
    assert_refused(tool(truth, result()), "categories[1]: 'id' must be an integer, got 'x'")


@pytest.mark.parametrize(('change', 'word'), [
    (dict(score=True), "[1]: 'score' must be a finite number, got True"), (dict(category_id=True), "[1]: 'category_id' must be"),
    (dict(category_id=2**64 + 1), "[1]: 'category_id' must be an integer"), (dict(bbox=[True, 0, 9, 9]), "[1]: 'bbox' must be"),
    (dict(bbox=[0, 0, 1e200, 1e200]), "[1]: 'bbox' must have numbers of at most 1e+15"),
    (dict(image_id=2**80), 'image id 1.2089258196146292e+24 is not'),
])
def test_numbers_of_results(tool, change, word):
    assert_refused(tool(annotations(), result(**change)), 'found.json' + word if word[0] == '[' else word)


@pytest.mark.parametrize('image_id', [2**63, 2**64 - 1, 2**64, -2**63 - 1, 10**30])
def test_large_image_ids_are_kept(image_id):
    truth = annotations(image=dict(id=image_id))
    for entry in truth['annotations']:
        entry['image_id'] = image_id
    found = [dict(entry, image_id=image_id) for entry in result()]
    run = evaluate(truth, found)
    assert run.report['bbox']['all']['AP'] == 1
    assert str(run.ground_truth.image_ids[0]) == str(image_id)


@pytest.mark.parametrize('box', [[0, 0, 5e-324, 5e-324], [-0., -0., 9, 9], [0, 0, 0, 0], [1e15, 0, 1, 1]])
def test_unusual_boxes_are_evaluated(tool, box):
    code, out, err = tool(annotations(bbox=box, area=abs(box[2] * box[3])), result(bbox=box, score=-0.))
    assert code == 0 and 'RuntimeWarning' not in err and 'encountered' not in err and out.startswith('bbox: AP')


def test_scores_beyond_single_precision(tmp_path, recwarn):
    evaluate(annotations(), result(score=1e300)).save(tmp_path)
    assert not [str(one.message) for one in recwarn if 'overflow' in str(one.message)]


def test_ratios_are_rounded_before_they_are_compared():
    """0.8999999999999999, as this sum gives it, is 0.9; an edge that is a float beside it changes nothing."""
    buckets = make_buckets([0, .1, .3, .9, 1])
    assert .1 + .2 != .3
    for ratio, name in ((.9 - 1e-16, '[0.9,1]'), (.9 - 1e-9, '[0.3,0.9)'), (.1 + .2, '[0.3,0.9)'), (1 + 1e-15, '[0.9,1]'),
                        (1e-14, 'r=0')):
        assert [bucket.name for bucket in buckets if bucket.holds(np.array(ratio))] == [name]
    assert make_buckets([0, .1 + .2, 1])[2].holds(np.array(.3))
    thirds = np.array([[0, 0, 9.3, 1], [.93, 0, 8.37, 1]])  # covers 0.9 of the first, and all of the second
    assert occlusion_ratio(thirds[:1], (20, 20)) == 0
    ratio = occlusion_ratio(thirds, (20, 20))
    assert ratio == round(ratio, 12)


@pytest.mark.parametrize('content', ['[' * 100_000 + ']' * 100_000, '[{"a":' + '[' * 100_000 + ']' * 100_000 + '}]',
                                     '{"a":' * 100_000 + '1' + '}' * 100_000])
def test_deep_json(tool, content):
    assert_refused(tool(content, result()), 'truth.json: the file is nested too deeply')
    assert_refused(tool(annotations(), content), 'found.json: the file is nested too deeply')


@pytest.mark.parametrize(('truth', 'found'), [
    (annotations(), result(score='x' * 10**6)), (annotations(), result(image_id='x' * 10**6)),
    (annotations(), result(category_id='x' * 10**6)), (annotations(), {'x' * 10**6: 1}), ({'x' * 10**6: 1}, result()),
    (annotations(image=dict(id='x' * 10**6)), result()), (annotations(image=dict(height='x' * 10**6)), result()),
    (annotations(iscrowd='x' * 10**6), result()), (annotations(category_id='x' * 10**6), result()),
    (annotations(image_id='1' * 5000), result()), (annotations(), result(category_id='1' * 5000)),
    (annotations(), result(image_id=[[[[1] * 1000] * 1000]] * 9)), (annotations(image_id={'a': 'x' * 10**6}), result())])
def test_long_values_are_not_echoed(tool, truth, found):
    assert_refused(tool(truth, found))


@pytest.mark.parametrize('key', ['area', 'id', 'image_id', 'category_id'])
def test_integers_of_many_digits(tool, key):
    text = json.dumps(annotations(**{key: 77777})).replace('77777', '7' * 5000)
    assert_refused(tool(text, result()), 'truth.json: the file has an integer of more than 4300 digits')


def test_folders_pipes_and_missing_files(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for path, words in ((tmp_path, 'is a folder'), (tmp_path / 'pipe', 'is a pipe or a device'),
                        ('/dev/null', 'is a pipe or a device'),
                        (tmp_path / 'none', 'no such file'), (tmp_path / ('x' * 5000), 'no such file')):
        with pytest.raises(ValueError, match=words):
            read_json(path)


def test_compressed_files(tmp_path):
    (tmp_path / 'a.json.gz').write_bytes(gzip.compress(json.dumps(annotations()).encode()))
    assert len(read_ground_truth(tmp_path / 'a.json.gz').image) == 2
    (tmp_path / 'bomb.gz').write_bytes(gzip.compress(b' ' * (1 << 29)))
    with pytest.raises(ValueError, match='bytes unpack to more than'):
        read_json(tmp_path / 'bomb.gz')


@pytest.mark.parametrize(('error', 'code', 'line'), [
    (MemoryError(), 2, 'error: out of memory (MMTIED_TRACEBACK=1 shows where)'), (KeyboardInterrupt(), 130, 'stopped by Ctrl-C'),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 2,
     'error: out of memory ('), (RecursionError('maximum recursion depth exceeded'), 2, 'error: nested too deeply'),
    (OSError(28, 'No space left on device', 'report.json'), 2, 'error: report.json: No space left on device'),
    (ValueError('x' * 10**7), 2, 'error: xxx'), (ValueError('a\ud800b'), 2, 'error: a\\ud800b')])
@pytest.mark.parametrize('only_own', [False, True])
def test_errors_of_tools_are_lines(capsys, error, code, line, only_own):
    if only_own and type(error) in (ValueError, OSError):
        return  # in training these are bugs of others
    with pytest.raises(SystemExit) as stop, user_errors(only_own):
        raise error
    err = capsys.readouterr().err.strip()
    assert stop.value.code == code and err.startswith(line) and '\n' not in err and len(err) <= LONGEST


@pytest.mark.parametrize('name', ['=1+1', '+1', '-1', '@SUM(A1)', ' =1', '\t=1'])
def test_formulas_are_text_in_tables(tmp_path, name):
    write_csv(tmp_path / 'a.csv', ['name', 'value'], [dict(name=name, value=-1.5)])
    assert (tmp_path / 'a.csv').read_text().splitlines()[1].replace('"', '') == f"'{name},-1.5"


def test_formulas_in_every_table_of_an_evaluation(tmp_path):
    truth = annotations(category=dict(name='=cmd()'), category_id=2)
    truth['categories'].append(dict(id=2, name='@x'))
    evaluate(truth, result(category_id=2), Evaluation(edges=(0, .5, 1))).save(tmp_path)
    for path in tmp_path.glob('*.csv'):
        cells = [cell for line in path.read_text().splitlines() for cell in line.split(',')]
        assert not [cell for cell in cells if cell.startswith(('=', '@', '+'))], path.name
    assert "'=cmd()" in (tmp_path / 'categories.csv').read_text()
