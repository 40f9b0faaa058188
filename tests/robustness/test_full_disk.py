"""A full disk is one line in the tools that write, and leaves nothing."""

import json
import resource
import signal

import pytest
import torch
from PIL import Image

from mmtied.evaluation import evaluate
from tests.helpers.tools import ROOT, run_in_process

#: Commands that write, with what they write; {0} is a folder of inputs, {1} one for outputs.
WRITERS = {
    'occlusion_eval': '{0}/truth.json {0}/found.json --replicates 10 --out {1} --images {0}/images',
    'occlusion_stats': '{0}/truth.json --out {1}', 'annotate_occlusion': '{0}/truth.json --out {1}',
    'browse_occlusion': '{0}/truth.json {0}/images --bucket 0 1 --out {1}/new', 'compare_runs': '{0}/a {0}/b --out {1}',
    'occlusion_report': '{1}/page.html {0}/a', 'convert_backbone': '{0}/classifier.pth {1}/backbone.pth',
    'accuracy_over_size': '--out {1}/sizes.png',
    'samples': '{0}/truth.json {0}/images --results {0}/found.json --bucket 0 1 --num 1 --out {1}/samples.png'}


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """Return a folder with annotations, results, images, two runs and a checkpoint."""
    folder = tmp_path_factory.mktemp('inputs')
    boxes = [[5, 5, 40, 40], [25, 5, 40, 40]]
    data = dict(images=[dict(id=number, file_name=f'{number}.png', height=60, width=90) for number in range(2)],
                categories=[dict(id=1, name='a')], annotations=[
                    dict(id=2 * image + number, image_id=image, category_id=1, bbox=box, area=1600, iscrowd=0)
                    for image in range(2) for number, box in enumerate(boxes)])
    found = [dict(image_id=entry['image_id'], category_id=1, bbox=entry['bbox'], score=.5) for entry in data['annotations']]
    for name, value in (('truth', data), ('found', found)):
        (folder / f'{name}.json').write_text(json.dumps(value))
    (folder / 'images').mkdir()
    for number in range(2):
        Image.effect_noise((90, 60), 90).save(folder / f'images/{number}.png')
    for name in 'ab':
        evaluate(data, found).save(folder / name)
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
    """As ``ulimit -f`` limits the size of a file, below that of what is written last."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, before[1]))
        code, lines, files = run(tool, WRITERS[tool])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    errors = [line for line in lines if line.startswith('error: ')]
    assert code == 2 and len(errors) == 1 and lines[-1] == errors[0] and len(errors[0]) <= 300, lines
    assert 'File too large' in errors[0] and not [line for line in lines if line.startswith('Traceback')]
    assert files == []
