"""Distributed runs: a failure of the main process ends the others with its cause, and what all notice is said once."""

import pytest

from mmtied import cli
from mmtied.evaluation import metric as metric_module
from mmtied.evaluation.metric import OcclusionCocoMetric

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
