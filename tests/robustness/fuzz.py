"""Fuzz every tool that reads files: valid files of each layout, changed in structure or in bytes, in processes that may crash.

    python tests/robustness/fuzz.py --minutes 60        (`make fuzz MINUTES=60`)

The only outcomes are exit code 0, with the numbers of pycocotools by every way (`ways.compare`) where it can read the files, and
exit code 2 with one error line of at most 300 characters and untouched outputs. Warnings may come before. A worker process with
a memory limit runs the tools' main functions, example after example; where it dies, the example that it was at is the fault.
Faults go into tests/robustness/corpus, whose examples the tests try again.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).with_name('corpus')
#: Bytes that the worker may take beyond those of its imports, and seconds for an example.
MEMORY, SECONDS = 3 << 30, 60


def run_tool(tool: str, arguments: list[str]) -> tuple[int, str, str]:
    """Run the main function of a tool in this process; return exit code, stdout and stderr."""
    from mmtied.__main__ import find_tool
    out, err, code = io.StringIO(), io.StringIO(), 0
    before, sys.argv = sys.argv, [tool, *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            find_tool(tool)()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    return code, out.getvalue(), err.getvalue()


def fault_of(tool: str, arguments: list[str], folder: Path, data: tuple | None) -> str | None:
    """Run an example and say what is wrong with its outcome; None where nothing is.

    Args:
        tool: A command of `mmtied`.
        arguments: Its arguments, with files of the folder.
        folder: Where the files are; ``out`` in it is where the tool writes.
        data: Annotations and results, to compare with pycocotools, where they are as COCO's.
    """
    kept = folder / 'out' / 'kept.txt'
    kept.parent.mkdir(exist_ok=True)
    kept.write_text('before')
    try:
        code, out, err = run_tool(tool, arguments)
    except BaseException:
        return traceback.format_exc()
    lines = err.splitlines()
    if any(len(line) > 300 for line in lines):
        return f'a line of {max(map(len, lines))} characters: {err[:400]}'
    if code == 0:
        if any('Error' in line or 'encountered in' in line for line in lines):
            return f'success with {err[:400]}'
        if data and '--skip-invalid' not in arguments:  # pycocotools leaves nothing out
            from tests.robustness.ways import compare
            return compare(*data)
        return None
    others = [line for line in lines if not line.startswith('warning: ')]
    if code != 2 or len(others) != 1 or not lines[-1].startswith('error: '):
        return f'exit code {code} with {err[:600]!r}'
    if sorted(path.name for path in kept.parent.iterdir()) != ['kept.txt'] or kept.read_text() != 'before':
        return f'outputs changed with an error: {sorted(path.name for path in kept.parent.iterdir())}'
    return None


def is_plain(data: object, found: object) -> bool:
    """Return whether pycocotools reads these as we do: every id and number of its own kind, every reference there."""
    try:
        images, categories = {image['id'] for image in data['images']}, {category['id'] for category in data['categories']}
        entries = [*data['annotations'], *found]
        kinds = {type(number) for entry in entries for number in entry.get('bbox', [])}
        kinds |= {type(entry['score']) for entry in found} | {type(entry['area']) for entry in data['annotations']}
        ids = [entry['id'] for entry in data['annotations']]
        return (bool(found) and kinds <= {int, float}
                and all(type(one) is int and 0 <= one < 2**31 for one in (*images, *categories))
                and all(entry['image_id'] in images and type(entry['image_id']) is int and entry['category_id'] in categories
                        and type(entry['category_id']) is int for entry in entries)
                and all(type(one) is int and 0 < one < 2**31 for one in ids) and len(set(ids)) == len(ids)
                and len(images) == len(data['images']) and len(categories) == len(data['categories'])
                and all(type(image[side]) is int for image in data['images'] for side in ('height', 'width'))
                and all(entry['iscrowd'] in (0, 1) and type(entry['iscrowd']) is int for entry in data['annotations'])
                and ('bbox' in found[0]) == all('bbox' in entry for entry in found)
                and all('neg_category_ids' not in image for image in data['images']))
    except (KeyError, TypeError, AttributeError):
        return False


def try_example(example: dict) -> str | None:
    """Write an example's files into a new folder and run it; return its fault."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in example['files'].items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(base64.b64decode(content))
        data = None
        if example.get('compare'):
            try:
                data = tuple(json.loads((folder / file).read_bytes()) for file in example['compare'])
                data = data if is_plain(*data) else None
            except (ValueError, OSError, RecursionError):
                data = None
        return fault_of(example['tool'], [text.replace('{folder}', name) for text in example['arguments']], folder, data)


def work(seed: int, end: float, most: int, state: Path, blank: bool = False) -> None:
    """Run examples until a time or a number; write each into `state` before it runs, and its fault after it."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from tests.helpers.figures import blank_figures
    from tests.robustness.generators import examples

    used = int(Path('/proc/self/statm').read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, ) * 2)

    def expired(*_: object) -> None:
        raise TimeoutError(f'more than {SECONDS} seconds')

    signal.signal(signal.SIGALRM, expired)
    blanks = ExitStack()
    if blank:
        blanks.enter_context(blank_figures())
    done, kinds = 0, Counter()
    while time.monotonic() < end and done < most:
        @seeded(seed + done)
        @settings(max_examples=min(100, most - done), database=None, deadline=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))
        @given(examples())
        def round_of_examples(example: dict) -> None:
            nonlocal done
            if time.monotonic() > end or done >= most:
                return
            (state / 'example.json').write_text(json.dumps(example))
            signal.alarm(SECONDS)
            fault = try_example(example)
            signal.alarm(0)
            done += 1
            kinds[example['kind']] += 1
            if fault:
                with (state / 'faults.jsonl').open('a') as file:
                    file.write(json.dumps({**example, 'fault': fault}) + '\n')

        round_of_examples()
        (state / 'done.json').write_text(json.dumps([done, kinds]))
    (state / 'ended').touch()


def run(minutes: float, most: int, seed: int, blank: bool = False) -> tuple[int, Counter, list[dict]]:
    """Run workers, a new one wherever one dies; return the number of examples, of each kind, and the faults.

    With `blank` the figures of pages are not drawn, which takes more than half of the time.
    """
    end, done, kinds, faults = time.monotonic() + 60 * minutes, 0, Counter(), []
    while time.monotonic() < end and done < most:
        with tempfile.TemporaryDirectory() as name:
            state = Path(name)
            left = end - time.monotonic()
            command = [sys.executable, __file__, '--work', str(state), '--seed', str(seed + done), '--minutes', str(left / 60),
                       '--examples', str(most - done), *(['--blank'] if blank else [])]
            code = subprocess.run(command, cwd=ROOT, check=False, stderr=(state / 'log').open('w'),
                                  env={**os.environ, 'MMTIED_REGISTER': '0', 'PYTHONPATH': f'{ROOT}{os.pathsep}{sys.path[0]}',
                                       'OMP_NUM_THREADS': '1'}).returncode
            if (state / 'done.json').exists():
                number, of_kind = json.loads((state / 'done.json').read_text())
                done, kinds = done + number, kinds + Counter(of_kind)
            if (state / 'faults.jsonl').exists():
                faults += map(json.loads, (state / 'faults.jsonl').read_text().splitlines())
            if not (state / 'ended').exists():
                log = (state / 'log').read_text()[-3000:]
                if not (state / 'example.json').exists():
                    raise RuntimeError(f'the worker cannot start: {log}')
                example = json.loads((state / 'example.json').read_text())
                faults.append({**example, 'fault': f'the process ended with {code}: {log}'})
                done += 1
    return done, kinds, faults


def main() -> None:
    """Fuzz, print the count, save what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=60)
    parser.add_argument('--examples', type=int, default=10**9)
    parser.add_argument('--seed', type=int, default=time.time_ns() % 10**9)
    parser.add_argument('--blank', action='store_true', help='do not draw the figures of pages')
    parser.add_argument('--work', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.seed, time.monotonic() + 60 * args.minutes, args.examples, args.work, args.blank)
        return
    done, kinds, faults = run(args.minutes, args.examples, args.seed, args.blank)
    for number, fault in enumerate(faults):
        CORPUS.mkdir(exist_ok=True)
        path = CORPUS / f'{fault["kind"]}_{args.seed}_{number}.json'
        path.write_text(json.dumps({key: value for key, value in fault.items() if key != 'fault'}))
        print(f'{path.name}: {fault["tool"]} {" ".join(fault["arguments"])}\n{fault["fault"]}\n')
    print(f'{done} examples (seed {args.seed}): {", ".join(f"{name} {count}" for name, count in kinds.most_common())}; '
          f'{len(faults)} faults')
    sys.exit(bool(faults))


if __name__ == '__main__':
    main()
