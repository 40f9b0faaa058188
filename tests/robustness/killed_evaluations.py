"""Kill processes that write an evaluation over another one, at random times, and read what they leave.

``python tests/robustness/killed_evaluations.py 100`` prints how often the old report was whole, the new one was, or there was
none.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mmtied.evaluation import evaluate, read_records
from mmtied.evaluation.reporting.runs import read_report
from tests.helpers.figures import blank_figures

#: Seconds that a move of a file takes where a process is to be killed between two of them.
MOVE = .02


def results(quality: float):
    """Return an evaluation of a few images whose AP depends on `quality`."""
    images = [dict(id=number, height=90, width=90) for number in range(6)]
    boxes = [[10 * (number % 3), 10, 30, 30] for number in range(12)]
    annotations = [dict(id=number + 1, image_id=number % 6, category_id=1, bbox=box, area=900)
                   for number, box in enumerate(boxes)]
    detections = [dict(image_id=entry['image_id'], category_id=1, bbox=entry['bbox'], score=.5) for entry in annotations]
    return evaluate(dict(images=images, annotations=annotations, categories=[dict(id=1, name='a')]),
                    detections[:int(quality * len(detections))])


def kill_while_writing(result, folder: Path, after: float, from_first_move: bool = False) -> bool:
    """Save a result in another process that is killed after some seconds; return whether it was done before.

    With `from_first_move` they count from when the old report is taken away, and each file takes `MOVE` seconds to move.
    """
    child = os.fork()
    if child == 0:
        try:
            if from_first_move:
                replace = Path.replace
                Path.replace = lambda path, target: (time.sleep(MOVE), replace(path, target))[1]
            result.save(folder)
        finally:
            os._exit(0)
    start, report = time.monotonic(), folder / 'report.json'
    waiting = from_first_move
    while waiting or time.monotonic() < start + after:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        if waiting and not report.exists():
            waiting, start = False, time.monotonic()
        time.sleep(.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def found(folder: Path, runs: dict[float, str]) -> str:
    """Return which run a folder holds, by its AP, or 'none'; raise an AssertionError for a mixture."""
    try:
        report = read_report(folder / 'report.json')
    except ValueError as error:
        assert 'no such file' in str(error) and 'stopped while writing; run it again' in str(error), error
        return 'none'
    name, records = runs[report['bbox']['all']['AP']], read_records(folder)
    assert report['run'] == records.run
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith('.')) == [
        'ap_over_r_bbox.png', 'buckets.csv', 'buckets.tex', 'records.npz', 'report.html', 'report.json']
    return name


def kill_often(number: int, seed: int = 0) -> Counter:
    """Kill `number` evaluations that replace another one; return how often each state was found."""
    draw, states = random.Random(seed), Counter()
    pair = [results(1.), results(.5)]
    runs = {result.report['bbox']['all']['AP']: name for result, name in zip(pair, ('old', 'new'), strict=True)}
    assert len(runs) == 2
    with blank_figures(), tempfile.TemporaryDirectory() as name:
        folder, kept = Path(name, 'out'), Path(name, 'kept')
        pair[0].save(folder)
        shutil.copytree(folder, kept)
        start = time.monotonic()
        assert kill_while_writing(pair[1], folder, 600)
        longest = time.monotonic() - start
        pair[0].save(folder)
        while states.total() - states['done'] < number:
            in_moves = states.total() % 2 == 1
            if kill_while_writing(pair[1], folder, draw.random() * (7 * MOVE if in_moves else longest), in_moves):
                states['done'] += 1
                assert found(folder, runs) == 'new'
            else:
                states[found(folder, runs)] += 1
            if states.total() % 10 == 0 or states.total() == number:
                pair[0].save(folder)
                assert found(folder, runs) == 'old'
                assert not [path for path in folder.iterdir() if path.name.startswith('.')], 'temporary files stay'
            else:  # as a save, but quicker
                shutil.rmtree(folder)
                shutil.copytree(kept, folder)
    return states


if __name__ == '__main__':
    import torch
    torch.set_num_threads(1)
    print(dict(kill_often(int(sys.argv[1]) if len(sys.argv) > 1 else 100)), 'and no mixture')
