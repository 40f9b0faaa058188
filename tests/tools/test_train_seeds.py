"""Run tools/train_seeds.py with a stand-in for training that writes mmengine's log."""

import json
import statistics
import subprocess
import sys

import pytest

from mmtied.launch.seeds import report_spreads, summarize_seeds
from tests.helpers.tools import ROOT, run_in_process

#: Accuracy of each seed's last validation.
ACCURACY = {0: 92.5, 1: 93.0, 2: 92.75}


@pytest.fixture
def training(monkeypatch):
    """Replace the subprocess; return the commands that were run. The run in `fails` ends with exit code 3."""
    commands, fails = [], set()
    monkeypatch.delenv('PYTHON', raising=False)  # exported by make

    def run(command, check, env):
        assert env['PYTHON'] == sys.executable
        folder, seed = command[command.index('--work-dir') + 1], int(command[-1].removeprefix('randomness.seed='))
        commands.append(command)
        log = ROOT / folder / f'2026112{len(commands)}_000000/vis_data/scalars.json'
        log.parent.mkdir(parents=True)
        lines = [{'lr': 0.1, 'loss': 2.3, 'time': 1., 'step': 10}, {'accuracy/top1': 10., 'time': 1., 'step': 1},
                 {'accuracy/top1': ACCURACY[seed], f'only/{seed}': 1., 'data_time': 0.1, 'time': 1., 'step': 2}]
        log.write_text('\n'.join(map(json.dumps, lines)) + '\n')
        (log.parents[2] / 'last_checkpoint').write_text('epoch_2.pth')
        return subprocess.CompletedProcess(command, 3 if seed in fails else 0)

    monkeypatch.setattr(subprocess, 'run', run)
    return commands, fails


def test_trains_each_seed_and_summarizes(training, tmp_path, monkeypatch, capfd):
    commands, _ = training
    arguments = ('config.py', '--runs', 3, '--work-dir', tmp_path, '--amp', '--cfg-options', 'train_cfg.max_epochs=2')
    code, out, _ = run_in_process('train_seeds.py', arguments, monkeypatch, capfd)
    assert code == 0
    for seed, command in enumerate(commands):
        folder = str(tmp_path / f'seed_{seed}')
        assert command == [sys.executable, str(ROOT / 'tools/train.py'), 'config.py', '--work-dir', folder, '--amp',
                           '--cfg-options', 'train_cfg.max_epochs=2', '--cfg-options', f'randomness.seed={seed}']
    mean, deviation = statistics.mean(ACCURACY.values()), statistics.stdev(ACCURACY.values())
    assert out.splitlines()[-1].split() == ['accuracy/top1', f'{mean:.4g}', f'{deviation:.2g}']
    saved = json.loads((tmp_path / 'seeds.json').read_text())
    assert saved == {'accuracy/top1': {'values': {'0': 92.5, '1': 93.0, '2': 92.75}, 'mean': pytest.approx(mean),
                                       'deviation': pytest.approx(deviation)}}
    code, again, _ = run_in_process('train_seeds.py', ('--summarize', tmp_path), monkeypatch, capfd)
    assert (code, again) == (0, out)
    assert len(commands) == 3


def test_what_is_undefined_is_null(tmp_path):
    """JSON has no NaN, and most readers refuse it."""
    folder = tmp_path / 'seed_0'
    scalars = folder / '20260101' / 'vis_data' / 'scalars.json'
    scalars.parent.mkdir(parents=True)
    scalars.write_text('{"accuracy/top1": 92.5, "loss_of_val": NaN, "step": 1}\n')
    (folder / 'finished').touch()
    table = report_spreads(summarize_seeds(tmp_path), tmp_path / 'seeds.json')
    assert 'last validation of 1 run' in table
    saved = json.loads((tmp_path / 'seeds.json').read_text(), parse_constant=pytest.fail)
    assert saved == {'accuracy/top1': {'values': {'0': 92.5}, 'mean': 92.5, 'deviation': None},
                     'loss_of_val': {'values': {'0': None}, 'mean': None, 'deviation': None}}


def test_goes_on_after_a_failure(training, tmp_path, monkeypatch, capfd):
    commands, fails = training
    fails.add(1)
    arguments = ('config.py', '--runs', 3, '--work-dir', tmp_path, '--gpus', 2)
    code, _, err = run_in_process('train_seeds.py', arguments, monkeypatch, capfd)
    assert code == 2
    assert err.strip().endswith('train_seeds: the run of seed 1 ended with exit code 3; run the same command again to continue')
    fails.clear()
    code, out, _ = run_in_process('train_seeds.py', arguments, monkeypatch, capfd)
    assert (code, len(commands)) == (0, 4)
    assert commands[2][:5] == ['bash', str(ROOT / 'tools/dist_train.sh'), 'config.py', '2', '--work-dir']
    assert ['--resume' in command for command in commands] == [False, False, True, False]
    assert 'last validation of 3 runs' in out


def test_a_wrong_setting_is_reported_once(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(subprocess, 'run', lambda command, check, env: subprocess.CompletedProcess(command, 2))
    code, out, err = run_in_process('train_seeds.py', ('none.py', '--work-dir', tmp_path), monkeypatch, capfd)
    assert (code, out, err) == (2, '', '')  # train.py has printed the error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('arguments', 'message'), [
    ((), 'give either a config or --summarize DIR'),
    (('config.py', '--runs', 0), 'expected at least 1 run'),
    (('config.py', '--gpus', 0), '--gpus 0: expected at least 1'),
    (('--summarize', 'nowhere'), 'train_seeds: no finished runs in nowhere'),
    (('--summarize', 'nowhere', '--amp'), '--summarize takes no other options, got --amp')])
def test_user_errors(arguments, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_in_process('train_seeds.py', arguments, monkeypatch, capfd)
    assert code == 2
    assert message in err
