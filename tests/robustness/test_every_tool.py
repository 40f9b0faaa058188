"""Every tool keeps image names inside their folder, writes files whole or not at all, and reports errors in one line."""

import ast
import json

import pytest
import torch
from PIL import Image

from tests.helpers.tool_inputs import write_tool_inputs
from tests.helpers.tools import ROOT, run_in_process, run_on_full_disk

TOOLS = sorted((ROOT / 'tools').glob('*.py'))
#: Commands that write, with what they write; {0} is a folder of inputs, {1} one for outputs.
WRITERS = {
    'occlusion_eval': '{0}/truth.json {0}/found.json --replicates 10 --out {1} --images {0}/images',
    'occlusion_stats': '{0}/truth.json --out {1}', 'annotate_occlusion': '{0}/truth.json --out {1}',
    'browse_occlusion': '{0}/truth.json {0}/images --bucket 0 1 --out {1}/new', 'compare_runs': '{0}/a {0}/b --out {1}',
    'occlusion_report': '{1}/page.html {0}/a', 'convert_backbone': '{0}/classifier.pth {1}/backbone.pth',
    'accuracy_over_size': '--out {1}/sizes.png', 'make_occluded_shapes': '{1}/new --images 2 --val-images 1 --workers 1',
    'samples': '{0}/truth.json {0}/images --results {0}/found.json --bucket 0 1 --num 1 --out {1}/samples.png'}
#: Commands that open images by the names of the annotations.
READERS = {name: WRITERS[name] for name in ('occlusion_eval', 'browse_occlusion', 'samples')}


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Return a folder with annotations, results, images, two runs and a checkpoint."""
    folder = tmp_path_factory.mktemp('inputs')
    write_tool_inputs(folder)
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.randn(64, 3, 7, 7)}), folder / 'classifier.pth')
    return folder


@pytest.fixture
def run(inputs, tmp_path, monkeypatch, capfd):
    """Return a function that runs a command, and returns exit code, lines of stderr and the files that are new."""
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'kept.txt').write_text('before')

    def run(tool, command, folder=None):
        words = [word.format(folder or inputs, out) for word in command.split()]
        monkeypatch.chdir(ROOT)
        code, _, err = run_in_process(f'{tool}.py', words, monkeypatch, capfd)
        return code, err.splitlines(), sorted(path.name for path in out.iterdir() if path.name != 'kept.txt')

    return run


@pytest.mark.parametrize('tool', WRITERS)
def test_a_full_disk_is_a_line_and_leaves_nothing(run, tool):
    """Of files, as the limit is below the size of what is written last."""
    code, lines, files = run_on_full_disk(lambda: run(tool, WRITERS[tool]), 400)
    errors = [line for line in lines if line.startswith('error: ')]
    assert code == 2 and len(errors) == 1 and lines[-1] == errors[0] and len(errors[0]) <= 300, lines
    assert 'File too large' in errors[0] and not [line for line in lines if line.startswith('Traceback')]
    assert '/out' in errors[0] or tool in ('occlusion_stats', 'compare_runs')  # whose captured stdout is limited too
    assert files == []


@pytest.mark.parametrize(('error', 'code', 'line'), [(MemoryError(), 2, 'error: out of memory'),
                                                     (KeyboardInterrupt(), 130, 'stopped by Ctrl-C')])
@pytest.mark.parametrize('tool', WRITERS)
def test_stopped_at_the_last_moment(run, monkeypatch, tool, error, code, line):
    """When the files that are written would take their places."""
    def stop(*_):
        raise error

    with monkeypatch.context() as patch:
        for name in ('replace', 'rename'):
            patch.setattr(f'pathlib.Path.{name}', stop)
        found, lines, files = run(tool, WRITERS[tool])
    assert found == code and lines[-1].startswith(line) and files == [], lines


@pytest.mark.parametrize('name', ['../secret.png', '/secret.png', 'a/../../secret.png', '..\\secret.png'])
@pytest.mark.parametrize('tool', READERS)
def test_names_of_images_stay_in_their_folder(run, inputs, tmp_path, tool, name):
    folder = tmp_path / 'inputs'
    (folder / 'images').mkdir(parents=True)
    Image.new('RGB', (90, 60), 'red').save(folder / 'secret.png')
    data = json.loads((inputs / 'truth.json').read_text())
    for image in data['images']:
        image['file_name'] = name.replace('/secret', f'{folder}/secret') if name.startswith('/') else name
    (folder / 'truth.json').write_text(json.dumps(data))
    (folder / 'found.json').write_bytes((inputs / 'found.json').read_bytes())
    code, lines, files = run(tool, READERS[tool], folder)
    assert code == 2 and files == [], lines
    assert any(words in lines[-1] for words in ('leads out of the folder', 'lacks', 'missing', 'no such file', 'cannot be read'))


@pytest.mark.parametrize('path', TOOLS, ids=[path.stem for path in TOOLS])
def test_every_tool_reports_errors_as_lines(path):
    """All that `main` does after the command line is read happens in `user_errors`, in the tools for users."""
    main = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == 'main')
    if 'docs/' in path.read_text() and path.stem.endswith('_table'):
        return  # they write the pages of this repository
    calls = [node for node in main.body if isinstance(node, ast.With)]
    assert calls and all('user_errors' in ast.unparse(node.items[0]) for node in calls), ast.unparse(main)[:300]
    assert not [node for node in main.body if isinstance(node, ast.For | ast.While | ast.If)]
