"""Run tools/occlusion_stats.py and tools/browse_occlusion.py."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

TOOLS = Path(__file__).parents[2] / 'tools'
BOXES = [[0., 0., 4., 4.], [2., 0., 4., 4.]]
DATA = dict(images=[dict(id=1, height=10, width=10, file_name='one.png')], categories=[dict(id=1, name='thing')],
            annotations=[dict(id=number + 1, image_id=1, category_id=1, bbox=box, area=16) for number, box in enumerate(BOXES)])


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a tool in a folder with an annotation file and an image; return its exit code and output."""
    def run(tool, *args, data=DATA):
        spec = importlib.util.spec_from_file_location(tool, TOOLS / f'{tool}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (tmp_path / 'instances.json').write_text(data if isinstance(data, str) else json.dumps(data))
        (tmp_path / 'images').mkdir(exist_ok=True)
        Image.new('RGB', (10, 10)).save(tmp_path / 'images/one.png')
        monkeypatch.chdir(tmp_path)
        try:
            module.main(['instances.json', *args])
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()
    return run


def test_stats_prints_tables_and_writes_files(run, tmp_path):
    code, out, err = run('occlusion_stats', '--edges', '0', '.5', '1', '--out', 'out')
    assert code == 0, err
    assert '1 images, 2 instances, 1 categories; r: covered, of images; mean 0.500' in out
    assert '\n[0.5,1]       1          2           1                 2.00\n' in out
    assert '\nthing             2       0.500               1.000\n' in out
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['stats.csv', 'stats.json', 'stats.png']
    stats = json.loads((tmp_path / 'out/stats.json').read_text())
    assert stats['buckets'][2]['images'] == 1
    with (tmp_path / 'out/stats.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['section'] for row in rows] == ['bucket'] * 3 + ['size'] * 3 + ['category']
    assert float(rows[-1]['mean']) == stats['by_category'][0]['mean'] == .5
    with Image.open(tmp_path / 'out/stats.png') as picture:
        assert picture.width > 600


@pytest.mark.parametrize('args', [['--unit', 'instance'], ['--cumulative'], ['--definition', 'union', '--same-category']])
def test_stats_options(run, tmp_path, args):
    code, out, err = run('occlusion_stats', '--out', 'out', *args)
    assert code == 0, err
    assert {'--unit': 'of instances', '--cumulative': 'r>=0.5', '--definition': 'union, same category'}[args[0]] in out


@pytest.mark.parametrize(('change', 'option', 'before', 'said'), [
    (dict(bbox=[0, 0, -1, 4]), '--skip-invalid', '--skip-invalid', '1 images, 2 instances'),
    (dict(ignore=1), ['--ignore-key', 'ignore'], '1 images, 3 instances', '1 images, 2 instances'),
    ({}, '--drop-duplicates', '--drop-duplicates', '1 images, 2 instances'),
])
def test_what_a_message_advises_works(run, change, option, before, said):
    data = dict(DATA, annotations=[*DATA['annotations'], {**DATA['annotations'][1], 'id': 3, **change}])
    _, out, err = run('occlusion_stats', data=data)
    assert before in out + err
    code, out, err = run('occlusion_stats', *([option] if isinstance(option, str) else option), data=data)
    assert code == 0 and said in out
    code, out, err = run('browse_occlusion', 'images', '--out', 'browsed', '--bucket', '.5', '.6',
                         *([option] if isinstance(option, str) else option), data=data)
    assert code == 0, err


def test_stats_of_empty_data_set(run, tmp_path):
    code, out, err = run('occlusion_stats', '--out', 'out', data=dict(DATA, annotations=[]))
    assert code == 0, err
    assert '1 images, 0 instances, 0 categories; r: covered, of images; mean -; 1 images in no bucket' in out


def test_browse_writes_pictures(run, tmp_path):
    code, out, err = run('browse_occlusion', 'images', '--bucket', '.5', '.6', '--out', 'out')
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['r0.50_1.jpg', 'sheet.jpg']


BROKEN = '{"images"'  # wrong options fail before the file is read
UNNAMED = dict(DATA, images=[dict(id=1, height=10, width=10)])
ABSENT = dict(DATA, images=[dict(DATA['images'][0], file_name='two.png')])


@pytest.mark.parametrize(('tool', 'args', 'data', 'message'), [
    ('occlusion_stats', ['--definition', 'most'], DATA, "unknown occlusion definition 'most'"),
    ('occlusion_stats', ['--unit', 'box'], DATA, "unknown bucket unit 'box'"),
    ('occlusion_stats', ['--edges', '0', '.5', '.4'], DATA, 'strictly increasing'),
    ('occlusion_stats', ['--high', '0'], DATA, 'high: expected a ratio above 0'),
    ('occlusion_stats', ['--top', '0'], DATA, '--top 0'),
    ('occlusion_stats', ['--definition', 'mask'], DATA, "has no 'segmentation'"),
    ('occlusion_stats', [], BROKEN, 'not complete JSON'),
    ('browse_occlusion', ['images', '--definition', 'most'], DATA, "unknown occlusion definition 'most'"),
    ('browse_occlusion', ['images', '--bucket', '.9', '.8'], BROKEN, 'lower < upper'),
    ('browse_occlusion', ['images', '--bucket', 'nan', '.8'], DATA, 'lower < upper'),
    ('browse_occlusion', ['images', '--num', '0'], BROKEN, '--num 0'),
    ('occlusion_stats', ['--high', '1.5'], DATA, 'high: expected a ratio above 0 and at most 1, got 1.5'),
    ('browse_occlusion', ['images', '--seed', '-1'], DATA, '--seed -1'),
    ('browse_occlusion', ['images'], DATA, 'no image in the bucket [0.8,0.9) (covered); ratios go from 0.5 to 0.5'),
    ('browse_occlusion', ['images'], dict(DATA, annotations=[]), 'in the bucket [0.8,0.9) (covered); no image has an'),
    ('browse_occlusion', ['nowhere', '--bucket', '.5', '1'], DATA, 'nowhere: no such folder'),
    ('browse_occlusion', ['images', '--bucket', '.5', '1'], UNNAMED, "has no 'file_name'"),
    ('browse_occlusion', ['images', '--bucket', '.5', '1'], ABSENT, 'lacks 1 of the 1 chosen images: two.png'),
    ('browse_occlusion', ['images', '--bucket', '.5', '1', '--skip-missing'], ABSENT, 'has none of the 1 images'),
])
def test_user_errors_exit_with_2(run, tmp_path, tool, args, data, message):
    code, out, err = run(tool, *args, '--out', 'out', data=data)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


def test_browse_keeps_non_empty_folder(run, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/mine.txt').write_text('mine')
    code, out, err = run('browse_occlusion', 'images', '--bucket', '.5', '1', '--out', 'out')
    assert (code, len(err.splitlines())) == (2, 1)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['mine.txt']
