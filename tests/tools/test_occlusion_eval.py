"""Run tools/occlusion_eval.py."""

import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures('blank_figures')
TOOL = Path(__file__).parents[2] / 'tools/occlusion_eval.py'
BOX, CODE = [0., 0., 4., 4.], {'size': [10, 10], 'counts': [0, 4, 6, 4, 6, 4, 6, 4, 66]}
DATA = dict(images=[dict(id=1, height=10, width=10)], categories=[dict(id=1, name='a')],
            annotations=[dict(id=1, image_id=1, category_id=1, bbox=BOX, area=16, iscrowd=0, segmentation=CODE)])
MASK = dict(image_id=1, category_id=1, score=.5, bbox=[5., 5., 4., 4.], segmentation=CODE)


@pytest.fixture(scope='module')
def main():
    spec = importlib.util.spec_from_file_location('occlusion_eval', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def run(main, tmp_path, monkeypatch, capsys):
    """Run the tool in a folder with these files; return its exit code and output."""
    def run(*args, **files):
        for name, content in {'instances': DATA, **files}.items():
            (tmp_path / f'{name}.json').write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.chdir(tmp_path)
        try:
            main(args)
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()
    return run


def test_runs_as_script(tmp_path):
    done = subprocess.run([sys.executable, str(TOOL), 'nowhere.json', 'results.json'], cwd=tmp_path, capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stderr) == (2, 'error: nowhere.json: no such file\n')


def test_prints_table_and_writes_files(run, tmp_path):
    code, out, err = run('instances.json', 'results.json', '--out', 'out', results=[dict(MASK, bbox=BOX)])
    assert code == 0, err
    assert 'bbox: AP in % by occlusion ratio r (covered)' in out
    assert 'segm: AP in % by occlusion ratio r (covered)' in out
    names = ['ap_over_r_bbox.png', 'ap_over_r_segm.png', 'buckets.csv', 'buckets.tex', 'records.npz', 'report.html',
             'report.json']
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == names
    report = json.loads((tmp_path / 'out/report.json').read_text())
    assert report['segm']['all']['AP'] == pytest.approx(1)


def test_reads_boxes_from_box_only_file(run, tmp_path):
    boxes = [dict(image_id=1, category_id=1, score=.5, bbox=BOX)]
    code, out, err = run('instances.json', 'segm.json', 'bbox.json', '--out', 'out', segm=[MASK], bbox=boxes)
    assert code == 0, err
    report = json.loads((tmp_path / 'out/report.json').read_text())
    assert report['bbox']['all']['AP'] == pytest.approx(1)  # the boxes in segm.json are elsewhere
    assert report['segm']['all']['AP'] == pytest.approx(1)


@pytest.mark.parametrize(('args', 'results', 'message'), [
    (['--definition', 'most'], [], "unknown occlusion definition 'most'"),
    (['--edges', '0', '0.5', '0.4'], [], 'strictly increasing'),
    (['--proposal-nums', '0'], [], 'positive integers'),
    (['--intervals', 'MR-2', '--replicates', '0'], [],
     '--intervals MR-2: --replicates 0 disables intervals; give only one of them'),
    (['--replicates', '-1'], [], '--replicates -1: expected at least 0; 0 disables intervals'),
    (['--iou-type', 'segm'], [dict(image_id=1, category_id=1, score=.5, bbox=BOX)], "has no 'segmentation'"),
    ([], [dict(MASK, image_id=2)], 'image id 2 is not in the annotation file'),
    ([], '[{"image_id": 1, "category_id": 1, "score": NaN, "bbox": [0, 0, 1, 1]}]', 'must be a finite number, got nan'),
    ([], '[{"image_id"', 'not complete JSON'),
])
def test_user_errors_exit_with_2(run, tmp_path, args, results, message):
    code, out, err = run('instances.json', 'results.json', '--out', 'out', *args, results=results)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


def test_duplicates_give_a_warning(run):
    other = dict(MASK, score=.25)
    code, out, err = run('instances.json', 'one.json', 'copy.json', '--replicates', '0', one=[MASK, other], copy=[MASK, other])
    assert code == 0
    assert [line.split(' detections')[0] for line in err.splitlines()][2:] == ['warning: bbox: 2 of 4', 'warning: segm: 2 of 4']
    assert all('for the same images and categories, and are joined' in line for line in err.splitlines()[:2])
    assert 'AP is too low if a file was included twice' in err
    assert run('instances.json', 'one.json', '--replicates', '0', one=[MASK, other])[2] == ''


def test_inverted_boxes_give_a_warning(run, tmp_path):
    entry, = pickle.loads(dump())
    entry['pred_instances']['bboxes'] = np.array([[4., 4., 0., 0.]])
    (tmp_path / 'swapped.pkl').write_bytes(pickle.dumps([entry]))
    code, out, err = run('instances.json', 'swapped.pkl', '--replicates', '0')
    assert (code, len(err.splitlines())) == (0, 1)
    assert err.startswith('warning: bbox: predicted boxes of image id 1 have x2 < x1 or y2 < y1')


def test_page_shows_worst_images(run, tmp_path):
    from PIL import Image
    data = {**DATA, 'images': [dict(id=1, height=10, width=10, file_name='one.png')]}
    code, _, err = run('instances.json', 'results.json', '--out', 'out', '--images', '.', instances=data, results=[MASK])
    assert (code, err.count('lacks 1 of the 1 images')) == (2, 1)
    assert not (tmp_path / 'out').exists()
    Image.new('RGB', (10, 10)).save(tmp_path / 'one.png')
    code, out, err = run('instances.json', 'results.json', '--out', 'out', '--images', '.', instances=data, results=[
        dict(MASK, bbox=[6., 6., 2., 2.], segmentation={'size': [10, 10], 'counts': [66, 2, 32]})])
    assert code == 0, err
    page = (tmp_path / 'out/report.html').read_text()
    assert 'one.png: r = 0.00, F1 0.00; 0 of 1 found, 1 missed, 0 duplicates, 1 unmatched' in page
    assert page.count('data:image/jpeg;base64,') == 1
    assert 'instances.json: 1 images' in page
    assert 'wrote out/report.html' in out


def dump(**changes):
    """Return a dump of one image with one detection that equals its annotation."""
    instances = dict(bboxes=np.array([[0., 0., 4., 4.]]), scores=np.array([.5]), labels=np.array([0]), **changes)
    return pickle.dumps([dict(img_id=1, ori_shape=(10, 10), pred_instances=instances)])


def test_reads_mmdet_dump(run, tmp_path):
    (tmp_path / 'results.pkl').write_bytes(dump(masks=[CODE]))
    code, out, err = run('instances.json', 'results.pkl', '--out', 'out')
    assert code == 0, err
    report = json.loads((tmp_path / 'out/report.json').read_text())
    assert report['bbox']['all']['AP'] == report['segm']['all']['AP'] == pytest.approx(1)


def test_classes_select_categories(run, tmp_path):
    two = dict(DATA, categories=[dict(id=2, name='b'), dict(id=1, name='a')])
    (tmp_path / 'results.pkl').write_bytes(dump())
    assert run('instances.json', 'results.pkl', '--out', 'all', instances=two)[0] == 0
    assert run('instances.json', 'results.pkl', '--out', 'one', '--classes', 'a', instances=two)[0] == 0
    by_name = {name: json.loads((tmp_path / name / 'report.json').read_text())['bbox']['all']['AP'] for name in ('all', 'one')}
    assert by_name == {'all': pytest.approx(0), 'one': pytest.approx(1)}  # label 0 is 'b' in the file's order


@pytest.mark.parametrize(('content', 'args', 'message'), [
    (dump()[:-5], [], 'results.pkl: the file is not a complete pickle'),
    (pickle.dumps(print), [], 'results.pkl: refused, as the pickle needs builtins.print'),
    (pickle.dumps([dict(pred_label=3)]), [], "has no 'img_id'"),
    (dump(), ['--iou-type', 'segm'], "no 'masks', which segm needs"),
    (dump(), ['--classes', 'z'], "no category named 'z'"),
])
def test_invalid_dump_exits_with_2(run, tmp_path, content, args, message):
    (tmp_path / 'results.pkl').write_bytes(content)
    code, out, err = run('instances.json', 'results.pkl', '--out', 'out', *args)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


def test_box_format_and_wrapped_results(run, tmp_path):
    corners = [dict(image_id=1, category_id=1, score=.5, bbox=[5, 5, 9, 9])]
    data = dict(DATA, annotations=[dict(DATA['annotations'][0], bbox=[5, 5, 4, 4])])
    code, _, err = run('instances.json', 'results.json', instances=data, results={'annotations': corners})
    assert code == 0
    assert ('warning: bbox: 1 of 1 boxes leave their image as x, y, width, height, and 1 fit as x1, y1, x2, y2; if that is their '
            "format, use box_format='xyxy' (--box-format xyxy)\n") in err
    code, out, err = run('instances.json', 'results.json', '--box-format', 'xyxy', '--out', 'out', instances=data,
                         results={'annotations': corners})
    assert (code, err) == (0, '')
    assert json.loads((tmp_path / 'out/report.json').read_text())['bbox']['all']['AP'] == pytest.approx(1)


def test_place_that_cannot_be_written_is_said_before_the_files_are_read(run, tmp_path):
    (tmp_path / 'taken').touch()
    code, _, err = run('nowhere.json', 'nothing.json', '--out', 'taken/out')
    assert (code, err) == (2, f'error: --out taken/out: cannot be written, as {tmp_path / "taken"} is not a folder\n')
