"""Distributed runs: a failure of the main process ends the others with its cause, and what all notice is said once."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from mmtied import cli
from mmtied.evaluation import metric as metric_module
from mmtied.evaluation.metric import OcclusionCocoMetric
from mmtied.evaluation.parallel import wait_for_others

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
    torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize(('failure', 'last', 'own'), [
    ("raise ValueError('image 7 is broken')", 'process 1 failed with exit code 2',
     ['error: image 7 is broken (MMTIED_TRACEBACK=1 shows where)']),
    ('os.kill(os.getpid(), signal.SIGKILL)', 'process 1 was killed by signal 9', []),
])
def test_a_failing_process_ends_the_run_with_its_cause(tmp_path, failure, last, own):
    """By the launcher of tools/dist_train.sh: the cause once, which process it was, and no traceback around it."""
    done = launch(tmp_path, WORKER.format(failure=failure))
    said = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert said == [*own, f'error: {last}, and the others were stopped; its own message is above'], done.stderr
    assert 'Traceback' not in done.stderr and done.returncode == (1 if not own else 2)


def meet_in_threads(world_size, before):
    """Let a thread for each process do what `before` says and then meet; return what each raised, None for nothing."""
    store, outcomes = torch.distributed.HashStore(), {}

    def run(rank):
        if before.get(rank, lambda _: True)(store):
            try:
                outcomes[rank] = wait_for_others(store, rank, world_size, 'joining', patience=.5)
            except ValueError as error:
                outcomes[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank, )) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return outcomes


def works(rank):
    """Be late by four times the patience, with CPU time that grows."""
    def work(store):
        for _ in range(20):
            store.add(f'mmtied/meeting/worked/{rank}', 50)
            time.sleep(.1)
        return True
    return work


@pytest.mark.parametrize('late', [0, 2])
def test_a_process_that_works_is_waited_for(late):
    assert meet_in_threads(3, {late: works(late)}) == {0: None, 1: None, 2: None}


@pytest.mark.parametrize('hangs', [0, 2])
def test_a_process_that_hangs_is_named(hangs):
    outcomes = meet_in_threads(3, {hangs: lambda _: False})
    assert len(outcomes) == 2
    assert all(f'joining: process {hangs} of 3 hangs or has ended, as it has done nothing for 0.5 seconds' in text
               for text in outcomes.values()), outcomes


HANGING = """
import os, time
import torch
from mmtied.cli import user_errors
from mmtied.evaluation import OcclusionCocoMetric

data = dict(images=[dict(id=1, height=9, width=9)], categories=[dict(id=1, name='a')],
            annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 4, 4], area=16, iscrowd=0)])
with user_errors():
    torch.distributed.init_process_group('gloo')
    metric = OcclusionCocoMetric(ann_file=data)
    metric.dataset_meta = dict(classes=('a', ))
    end = time.process_time() + 6
    if os.environ['RANK'] == '1':
        {late}
    metric.evaluate(1)
    torch.distributed.destroy_process_group()  # as tools/test.py; gloo's threads could abort an end without it
"""


@pytest.mark.parametrize(('late', 'code'), [('time.sleep(1000)', 2), ('while time.process_time() < end: pass', 0)])
def test_a_hanging_process_ends_the_run_and_a_slow_one_does_not(tmp_path, late, code):
    done = launch(tmp_path, HANGING.format(late=late), MMTIED_PATIENCE='4')
    said = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == code, done.stderr
    assert said == ([] if code == 0 else [
        'error: OcclusionCocoMetric: joining the results: process 1 of 2 hangs or has ended, as it has done nothing for 4 '
        'seconds; MMTIED_PATIENCE=600 waits longer',
        'error: process 0 failed with exit code 2, and the others were stopped; its own message is above'])


ENDING = """
import torch
from mmtied.evaluation import parallel

parallel._INTERVAL = 0.
torch.distributed.init_process_group('gloo')
parallel.meet('here')
"""


def test_processes_end_while_they_publish(tmp_path):
    """The interpreter ended the thread within the store's code, and the process aborted."""
    done = launch(tmp_path, ENDING)
    assert done.returncode == 0, done.stderr


def launch(tmp_path, code, **environment):
    (tmp_path / 'worker.py').write_text(code)
    environment = {**os.environ, 'MMTIED_REGISTER': '0', 'PYTHONPATH': str(ROOT), 'GLOO_SOCKET_IFNAME': 'lo', **environment}
    return subprocess.run([sys.executable, '-m', 'mmtied.launch.workers', '--nproc_per_node=2', '--master_addr=127.0.0.1',
                           f'--master_port={free_port()}', tmp_path / 'worker.py'], capture_output=True, text=True,
                          timeout=240, env=environment)


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]
