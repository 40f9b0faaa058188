import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_tool(*arguments):
    command = [sys.executable, ROOT / 'tools/make_occluded_shapes.py', *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=ROOT)


def test_makes_data_set_and_prints_ratios(tmp_path):
    done = run_tool(tmp_path / 'deep/shapes', '--images', 10, '--val-images', 2, '--seed', 5, '--size', 96)
    assert done.returncode == 0, done.stderr
    contents = json.loads((tmp_path / 'deep/shapes/annotations/instances_train2017.json').read_text())
    assert len(contents['images']) == 10
    assert {image['height'] for image in contents['images']} == {96}
    assert contents['info']['recipe']['seed'] == 5
    assert 'r = 0: 1  (0, 0.1): 1  [0.1, 0.2): 1' in done.stdout


@pytest.mark.parametrize('arguments, message', [
    (('--images', 0), 'num_images=0, expected an integer of at least 1'),
    (('--images', 5, '--size', 3), 'size=3, expected'),
    (('--images', 5, '--ratio-edges', 0.4, 0.1), 'ratio_edges=[0.4, 0.1], expected'),
    (('--images', 5, '--objects', 9, 3), 'objects=[9, 3], expected'),
])
def test_user_errors_leave_no_files(tmp_path, arguments, message):
    done = run_tool(tmp_path / 'shapes', *arguments)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_refuses_non_empty_folder(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    for extra in ([], ['--overwrite']):
        done = run_tool(tmp_path, '--images', 2, *extra)
        assert done.returncode == 2
        assert done.stderr.count('\n') == 1
        assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']
