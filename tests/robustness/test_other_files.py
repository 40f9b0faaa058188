"""Files that are neither annotations nor results: tables, logs, histories and images for training, when they are damaged."""

import csv

import numpy as np
import pytest
from PIL import Image

from mmtied.analysis.accuracy_over_size import read_points
from mmtied.evaluation import read_ground_truth
from mmtied.launch.seeds import last_metrics
from mmtied.related.groupable.training import GroupHistory
from mmtied.related.shared_bases.figures import read_gradients
from mmtied.tables import read_csv
from mmtied.training.alone import ImagesAlone

LONG = b'a' * (csv.field_size_limit() + 1)


@pytest.mark.parametrize('content', [b'detector,' + LONG, b'\xff\xfe', b'', b'"', b'\0' * 9], ids=str)
@pytest.mark.parametrize('read', [read_points, read_gradients])
def test_tables(tmp_path, read, content):
    """A cell longer than the module csv takes was a traceback, other bytes a line without the name of the file."""
    (tmp_path / 'table.csv').write_bytes(content)
    with pytest.raises(ValueError, match='table.csv: '):
        read(tmp_path / 'table.csv')


def test_table_of_open_images(tmp_path):
    (tmp_path / 'boxes.csv').write_bytes(b'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n' + LONG)
    (tmp_path / 'images').mkdir()
    with pytest.raises(ValueError, match=r'boxes.csv: not a readable table \(field larger than field limit'):
        read_ground_truth(str(tmp_path / 'boxes.csv'), image_folder=tmp_path / 'images')


def test_short_and_empty_rows(tmp_path):
    (tmp_path / 'table.csv').write_text('a,b\n1,2\n\n3\n"x\ny",4,5\n', encoding='utf-8-sig')
    with (tmp_path / 'table.csv').open(encoding='utf-8-sig', newline='') as file:
        expected = [{key: row[key] for key in 'ab'} for row in csv.DictReader(file)]
    assert read_csv(tmp_path / 'table.csv') == (['a', 'b'], expected)


@pytest.mark.parametrize('line', ['1', '[]', '{"a": ', '[' * 100_000, '\ud800'])
def test_logged_metrics(tmp_path, line):
    """A damaged line is named; the last one, which a killed run may have cut, is left out."""
    log = tmp_path / '20260101/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_bytes(b'{"AP": 0.5, "step": 1}\n' + line.encode(errors='surrogatepass'))
    assert last_metrics(tmp_path) == {'AP': .5}
    log.write_bytes(line.encode(errors='surrogatepass') + b'\n{"AP": 0.5, "step": 1}\n')
    with pytest.raises(ValueError, match='scalars.json: line 1 is not a JSON object'):
        last_metrics(tmp_path)


def test_logged_integers_out_of_range(tmp_path):
    log = tmp_path / '20260101/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(f'{{"AP": {"9" * 400}}}\n')
    with pytest.raises(ValueError, match='its log has an integer too large for a metric'):
        last_metrics(tmp_path)


@pytest.mark.parametrize('text', ['', '[]', '{"x": 1}', '[' * 100_000])
def test_history_of_groups(tmp_path, text):
    (tmp_path / 'history.json').write_text(text)
    with pytest.raises(ValueError, match='history.json: not a history of groups'):
        GroupHistory.load(tmp_path / 'history.json')


def test_images_without_labels(tmp_path, monkeypatch, capsys):
    """PostScript is not handed to Ghostscript, whatever its name; neither that nor a giant image ends the training."""
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / 'code.eps')
    (tmp_path / 'code.eps').rename(tmp_path / 'a.jpg')
    Image.new('1', (3000, 3000)).save(tmp_path / 'b.png')
    Image.new('RGB', (40, 40)).save(tmp_path / 'c.png')
    monkeypatch.setattr('PIL.EpsImagePlugin.Ghostscript', lambda *_, **__: pytest.fail('Ghostscript is called'))
    monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', 10**6)
    assert ImagesAlone(tmp_path, size=32)[0]['inputs'].shape == (3, 32, 32)
    printed = capsys.readouterr().err
    assert 'a.jpg: cannot be read as an image' in printed and 'b.png: cannot be read as an image' in printed
