"""Distributed runs: a failure of the main process ends the others with its cause, and what all notice is said once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mmtied import cli
from mmtied.evaluation import metric as metric_module
from mmtied.evaluation.metric import OcclusionCocoMetric

ROOT = Path(__file__).parents[2]
DATA = dict(images=[dict(id=1, height=9, width=9)], categories=[dict(id=1, name='a')],
            annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 4, 4], area=16, iscrowd=0)])


@pytest.fixture
def failing(monkeypatch):
    """Return a metric whose evaluation fails in the main process, and what that sends to the others."""
    metric, sent = OcclusionCocoMetric(ann_file=DATA), []
    metric.dataset_meta = dict(classes=('a', ))

    def fail(_):
        raise OSError(28, 'No space left on device', 'report.json')

    monkeypatch.setattr(metric, 'compute_metrics', fail)
    monkeypatch.setattr(metric_module, 'broadcast_object_list', lambda values: sent.append(list(values)))
    return metric, sent


def test_a_failure_of_the_main_process_reaches_the_others(failing, monkeypatch):
    metric, sent = failing
    with pytest.raises(OSError, match='No space left'):  # after it has told the others, which would wait for it
        metric.evaluate(1)
    assert sent[0][0] is None and 'No space left on device' in sent[0][1]
    monkeypatch.setattr(metric_module, 'is_main_process', lambda: False)
    monkeypatch.setattr(metric_module, 'broadcast_object_list', lambda values: values.__setitem__(slice(None), sent[0]))
    with pytest.raises(ValueError, match='the evaluation failed in the main process .OSError: .*No space left on device'):
        metric.evaluate(1)


@pytest.mark.parametrize(('rank', 'size', 'waits'), [('0', '2', False), ('1', '2', True), ('1', '1', False), (None, None, False)])
def test_other_processes_wait_before_they_report(monkeypatch, capsys, rank, size, waits):
    """The launcher ends them meanwhile where the main process reports the same."""
    slept = []
    monkeypatch.setattr(cli.time, 'sleep', slept.append)
    for name, value in (('RANK', rank), ('WORLD_SIZE', size)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit), cli.user_errors():
        raise ValueError('wrong')
    assert bool(slept) == waits and capsys.readouterr().err == 'error: wrong (MMTIED_TRACEBACK=1 shows where)\n'


@pytest.mark.parametrize(('message', 'waits'), [
    ('[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:24977', True), ('CUDA error: no kernel', False)])
def test_a_process_that_lost_another_waits_to_be_ended(monkeypatch, message, waits):
    slept = []
    monkeypatch.setattr(cli.time, 'sleep', slept.append)
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(RuntimeError, match='closed by peer|no kernel'), cli.user_errors():
        raise RuntimeError(message)
    assert slept == [cli.SECONDS_TO_END] * waits


WORKER = """
import os, signal, time
import torch
from mmtied.cli import user_errors

with user_errors():
    torch.distributed.init_process_group('gloo')
    if os.environ['RANK'] == '1':
        {failure}
    torch.distributed.barrier()
"""


@pytest.mark.parametrize(('failure', 'last', 'own'), [
    ("raise ValueError('image 7 is broken')", 'process 1 failed with exit code 2',
     ['error: image 7 is broken (MMTIED_TRACEBACK=1 shows where)']),
    ('os.kill(os.getpid(), signal.SIGKILL)', 'process 1 was ended by signal 9', []),
])
def test_a_failing_process_ends_the_run_with_its_cause(tmp_path, failure, last, own):
    """By the launcher of tools/dist_train.sh: the cause once, which process it was, and no traceback around it."""
    (tmp_path / 'worker.py').write_text(WORKER.format(failure=failure))
    environment = {**os.environ, 'MMTIED_REGISTER': '0', 'PYTHONPATH': str(ROOT), 'GLOO_SOCKET_IFNAME': 'lo'}
    done = subprocess.run([sys.executable, '-m', 'mmtied.launch.workers', '--nproc_per_node=2', '--master_addr=127.0.0.1',
                           f'--master_port={free_port()}', tmp_path / 'worker.py'], capture_output=True, text=True,
                          timeout=180, env=environment)
    said = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert said == [*own, f'error: {last}, and the others were ended; its own message is above'], done.stderr
    assert 'Traceback' not in done.stderr and done.returncode == (1 if not own else 2)


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]
