"""Every file argument of every command, given a program, a folder, a pipe, a device or noise: one line, and nothing runs."""

import os
import pickle
import re
import signal

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.visualization import Visualizer

from mmtied.__main__ import COMMANDS
from tests.helpers.tiny_networks import DETECTOR, write_network
from tests.helpers.tool_inputs import write_tool_inputs
from tests.helpers.tools import ROOT, run_in_process
from tests.robustness.programs import plain_program, program_by_getattr

#: Commands with a place {bad} for a wrong file, and the name that the file has.
PLACES = {
    'eval annotations': 'occlusion_eval {bad} {in}/found.json --out {out}|truth.json',
    'eval results': 'occlusion_eval {in}/truth.json {bad} --out {out}|found.json',
    'eval results.pkl': 'occlusion_eval {in}/truth.json {bad} --out {out}|found.pkl',
    'eval results.pth': 'occlusion_eval {in}/truth.json {bad} --out {out}|found.pth',
    'eval results.pkl.gz': 'occlusion_eval {in}/truth.json {bad} --out {out}|found.pkl.gz',
    'eval labels': 'occlusion_eval {in}/truth.json {in}/found.json --labels a {bad} --out {out}|labels.json',
    'stats': 'occlusion_stats {bad} --out {out}|truth.json', 'annotate': 'annotate_occlusion {bad} --out {out}|truth.json',
    'browse': 'browse_occlusion {bad} {in}/images --out {out}/new|truth.json',
    'browse images': 'browse_occlusion {in}/truth.json {bad} --bucket 0 1 --out {out}/new|images',
    'compare first': 'compare_runs {bad} {in}/a --out {out}|records.npz',
    'compare second': 'compare_runs {in}/a {bad} --out {out}|records.npz',
    'compare seeds': 'compare_runs --a {in}/a {in}/b --b {in}/a {bad} --out {out}|records.npz',
    'report': 'occlusion_report {out}/page.html {bad}|report.json',
    'report seeds': 'occlusion_report {out}/page.html --a {in}/a {in}/b --b {in}/a {bad}|report.json',
    'sizes': 'accuracy_over_size --out {out}/sizes.png --add {bad}|points.csv',
    'sizes run': 'accuracy_over_size --out {out}/sizes.png --run {in}/network.py {bad}|report.json',
    'sizes config': 'accuracy_over_size --out {out}/sizes.png --run {bad} {in}/a/report.json|network.txt',
    'bases gradients': 'shared_bases gradients {bad} --out {out}/x.png|basis_gradients.csv',
    'bases coefficients': 'shared_bases coefficients {bad} --out {out}/x.png|a.pth',
    'samples annotations': 'samples {bad} {in}/images --results {in}/found.json --bucket 0 1 --out {out}/x.png|truth.json',
    'samples results': 'samples {in}/truth.json {in}/images --results {bad} --bucket 0 1 --out {out}/x.png|found.pkl',
    'samples checkpoint': 'samples {in}/truth.json {in}/images --networks {in}/network.py {bad} --bucket 0 1 --out {out}/x.png'
                          '|a.pth',
    'similarity': 'filter_similarity {in}/network.py {bad} --images {in}/images --num 1 --out {out}/new|a.pth',
    'similarity image': 'filter_similarity {in}/network.py {in}/network.pth --images {bad} --num 1 --out {out}/new|a.png',
    'cam': 'grad_cam {in}/network.py {bad} --images {in}/images --category a --out {out}/x.png|a.pth',
    'cam image': 'grad_cam {in}/network.py {in}/network.pth --images {bad} --category cat --out {out}/x.png|a.png',
    'convert': 'convert_backbone {bad} {out}/x.pth|a.pth', 'tie': 'tie {in}/network.py {bad} {out}/x.pth|a.pth',
    'deploy': 'deploy {in}/network.py {bad} {out}/x.pt|a.pth',
    'test': 'test {in}/network.py {bad} --work-dir {out}|a.pth',
    'test config': 'test {bad} {in}/network.pth --work-dir {out}|a.txt',
    'train': 'train {bad} --work-dir {out}|a.txt', 'train resume': 'train {in}/network.py --resume {bad} --work-dir {out}|a.pth',
    'train backbone': 'train {in}/network.py --backbone-checkpoint {bad} --work-dir {out}|a.pth',
    'train load_from': 'train {in}/network.py --work-dir {out} --cfg-options load_from={bad}|a.pth',
    'distill teacher': 'distill {bad} {in}/network.py --images {in}/images --work-dir {out}|a.txt',
    'distill student': 'distill {in}/network.py {bad} --images {in}/images --work-dir {out}|a.txt',
    'distill weights': 'distill {in}/network.py {in}/network.py --weights {bad} --images {in}/images --work-dir {out}|a.pth',
    'distill images': 'distill {in}/network.py {in}/network.py --weights {in}/network.pth --images {bad} --work-dir {out}|a',
    'seeds': 'train_seeds --summarize {bad}|work'}


def _npz(path, marker):
    with path.open('wb') as file:
        np.savez(file, header=np.array([plain_program(marker)], dtype=object), a=np.ones(2))


#: Ways to make a wrong file.
WRONG = {
    'pickle': lambda path, marker: path.write_bytes(pickle.dumps([program_by_getattr(marker)])),
    'old pickle': lambda path, marker: path.write_bytes(pickle.dumps(plain_program(marker), 0)),
    'torch': lambda path, marker: torch.save({'state_dict': {'a': torch.ones(1)}, 'x': program_by_getattr(marker)}, path),
    'old torch': lambda path, marker: torch.save([plain_program(marker)], path, _use_new_zipfile_serialization=False),
    'npz': _npz, 'folder': lambda path, _: path.mkdir(), 'pipe': lambda path, _: os.mkfifo(path),
    'device': lambda path, _: path.symlink_to('/dev/null'), 'endless': lambda path, _: path.symlink_to('/dev/zero'),
    'missing': lambda *_: None, 'loop': lambda path, _: path.symlink_to(path), 'empty': lambda path, _: path.touch(),
    'noise': lambda path, _: path.write_bytes(np.random.default_rng(0).bytes(4096)),
    'deep': lambda path, _: path.write_text('[' * 100_000),
    'text': lambda path, _: path.write_text('import os\nraise SystemExit(7)')}


#: What mmengine writes into a work-dir before the distillation looks for its teacher.
LOGS = re.compile(r'^\d{8}_\d{6}')


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('in')
    write_tool_inputs(folder)
    write_network(folder, DETECTOR)
    (folder / 'loop').symlink_to(folder / 'loop')
    return folder


def test_every_command_is_tried():
    """The two others take no files."""
    assert {place.split()[0] for place in PLACES.values()} == {tool for tool, _ in COMMANDS.values()} - {
        'demo', 'make_occluded_shapes'}


def expired(*_):
    raise TimeoutError('it hangs')


@pytest.mark.parametrize('place', PLACES)
def test_one_line(inputs, tmp_path, monkeypatch, capfd, place):
    monkeypatch.chdir(ROOT)
    command, _, name = PLACES[place].partition('|')
    faults = []
    before = signal.signal(signal.SIGALRM, expired)
    for kind, make in WRONG.items():
        folder, marker, out = (tmp_path / f'{kind}_{part}' for part in ('in', 'ran', 'out'))
        folder.mkdir()
        out.mkdir()
        make(folder / name, marker)
        MMLogger._instance_dict.clear()
        Visualizer._instance_dict.clear()
        tool, *words = (word.replace('{bad}', str(folder / name)).replace('{in}', str(inputs)).replace('{out}', str(out))
                        for word in command.split())
        signal.alarm(30)
        try:
            code, _, err = run_in_process(f'{tool}.py', words, monkeypatch, capfd)
        except BaseException as error:
            faults.append((kind, repr(error)[:300]))
            continue
        finally:
            signal.alarm(0)
        lines = [line for line in err.splitlines() if not line.startswith('warning: ')]
        files = [path.name for path in out.rglob('*') if path.is_file() and not LOGS.search(str(path.relative_to(out)))]
        if marker.exists():
            faults.append((kind, 'IT RAN'))
        longest = 1000 if place.startswith(('train', 'test', 'distill')) else 300
        if code != 2 or len(lines) != 1 or len(lines[0]) > longest or name not in lines[0] or files:
            faults.append((kind, code, lines, files))
    signal.signal(signal.SIGALRM, before)
    assert not faults, '\n'.join(map(str, faults))


@pytest.mark.parametrize('command', [
    'annotate_occlusion {in}/truth.json --out {in}/loop',
    'browse_occlusion {in}/truth.json {in}/images --bucket 0 1 --out {in}/loop',
    'make_occluded_shapes {in}/loop --images 2 --val-images 1 --workers 1', 'occlusion_report {in}/loop/page.html {in}/a',
    'occlusion_eval {in}/truth.json {in}/found.json --out {in}/loop', 'compare_runs {in}/a {in}/b --out {in}/loop'])
def test_outputs_in_a_link_to_itself(inputs, monkeypatch, capfd, command):
    """Path.resolve raises a RuntimeError there, up to Python 3.12."""
    monkeypatch.chdir(ROOT)
    tool, *words = command.replace('{in}', str(inputs)).split()
    code, _, err = run_in_process(f'{tool}.py', words, monkeypatch, capfd)
    assert code == 2 and err.splitlines()[-1].startswith('error: ') and 'loop' in err.splitlines()[-1]
