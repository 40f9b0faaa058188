"""Compare the time that this version and an older one take to read annotations and results.

The older commit is checked out into another folder. Both versions read the same files in turns, each time in a new process with
one thread, which measures its CPU time without imports. The tables show ratios within a pair of turns, and their spread.

    python benchmarks/reading.py 188c9c0 --repeats 9
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from reporting import add_options, apply_options, report
from scale import repeated, write_repeated
from simulated_detections import make_annotations, simulate

from mmtied.cli import user_errors

ROOT = Path(__file__).resolve().parents[1]
#: Images of 10 annotations and 10 detections each.
IMAGES, REPEATS_OF_DATA = 1000, 50
CODE = """
import sys, time
from mmtied.evaluation.inputs import load_detections, read_ground_truth
times = [time.process_time()]
truth = read_ground_truth(sys.argv[1])
times.append(time.process_time())
load_detections(sys.argv[2], truth, ['bbox'])
times.append(time.process_time())
print(times[1] - times[0], times[2] - times[1])
"""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('commit', help='commit of the older version')
    parser.add_argument('--shrink', type=int, default=1, help='divide the number of images, for a smoke test')
    add_options(parser, repeats=9)
    args = parser.parse_args()
    with user_errors(), tempfile.TemporaryDirectory() as folder:
        apply_options(args)
        report(args, f'Reading of annotations and results in this version over that in {args.commit}: CPU time.',
               rows(args, Path(folder)), ('numpy', ))


def rows(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """Yield the ratios for annotations and for results."""
    older = folder / 'older'
    done = subprocess.run(['git', 'worktree', 'add', '--quiet', '--detach', older, args.commit], cwd=ROOT, capture_output=True,
                          text=True)
    if done.returncode:
        raise ValueError(f'{args.commit} cannot be checked out: {done.stderr.strip()}')
    try:
        data = make_annotations(IMAGES // args.shrink)
        found = simulate(data, 10 * len(data['images']), with_masks=False)
        truth, results = folder / 'truth.json', folder / 'found.json'
        truth.write_text(json.dumps(repeated(data, REPEATS_OF_DATA)), encoding='utf-8')
        write_repeated(found, 'bbox', REPEATS_OF_DATA, data, results)
        pairs = []
        for turn in range(args.repeats):
            order = (ROOT, older)[::1 if turn % 2 else -1]
            seconds = {root: read(root, truth, results) for root in order}
            pairs.append((seconds[ROOT], seconds[older]))
    finally:
        subprocess.run(['git', 'worktree', 'remove', '--force', older], cwd=ROOT, check=False)
    pairs = np.array(pairs)
    for number, name in enumerate(('annotations', 'results')):
        ratios = pairs[:, 0, number] / pairs[:, 1, number]
        yield {'read': name, 'entries': REPEATS_OF_DATA * (len(data['annotations']), len(found.score))[number],
               'now, s': f'{np.median(pairs[:, 0, number]):.2f}', 'before, s': f'{np.median(pairs[:, 1, number]):.2f}',
               'ratio': f'{np.median(ratios):.2f}', 'lowest': f'{ratios.min():.2f}', 'highest': f'{ratios.max():.2f}'}


def read(root: Path, truth: Path, results: Path) -> tuple[float, float]:
    """Return the CPU seconds that a version takes to read annotations and results."""
    done = subprocess.run([sys.executable, '-c', CODE, truth, results], cwd=root, capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'})
    if done.returncode:
        raise ValueError(f'{root.name}: {done.stderr.strip()[-300:]}')
    before, after = done.stdout.split()[-2:]
    return float(before), float(after)


if __name__ == '__main__':
    main()
