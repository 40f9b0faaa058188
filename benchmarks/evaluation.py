"""Compare COCO evaluation by occlusion with other tools: time, memory, equality of results, and overhead in a val loop.

Simulated detections (seeded) on real annotations are evaluated on all images and in eleven occlusion buckets. Every run is a
separate process, and the tools take turns. The timed sources are:

- ``memory``: from arrays (run-length codes for masks) to the table;
- ``json``: from a results file to the table;
- ``command``: the whole process from files to the printed table: `tools/occlusion_eval.py --replicates 0` for mmtied, the
  shortest script for the others; mmtied is compiled to bytecode first, as by pip;
- ``command, files``: the same plus all of mmtied's files (records, tables, plots and page), which no other tool writes;
  ``--replicates 1000`` adds it with intervals.

The other tools receive the images of each bucket; mmtied computes them within the measured time. CPU seconds sum over threads and
vary less on a busy machine. Peak memory is measured on top of imports, annotations and input. With ``--device cuda``, boxes in
memory and the val loop's boxes and masks are tensors on the GPU; run-length codes are read and compared on the CPU.

    python benchmarks/evaluation.py ANNOTATIONS --csv docs/benchmarks/evaluation_cpu.csv
    python benchmarks/evaluation.py ANNOTATIONS --val-images 300 --csv docs/benchmarks/val_loop_cpu.csv
"""

import argparse
import compileall
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from contenders import CONTENDERS
from reporting import add_options, apply_options, report
from simulated_detections import SimulatedDetections, simulate, write_results

from mmtied.cli import user_errors
from mmtied.evaluation.buckets import bucket_members, make_buckets
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.occlusion import image_ratios

HERE = Path(__file__).resolve().parent
PACKAGES = ('torch', 'numpy', *CONTENDERS)
SOURCES = ('memory', 'json', 'command', 'command, files')


def main() -> None:
    """Run the benchmark."""
    args = parse_arguments()
    with user_errors(), tempfile.TemporaryDirectory() as temporary:
        apply_options(args)
        folder = args.work_dir or Path(temporary)
        title = f'{prepare(args, folder)} Medians of {args.repeats} runs.'
        if args.val_images:
            rows = compare_val_loop(args, folder)
            title = f'Seconds added to a val loop of {args.val_images} images. {title}'
        else:
            rows = compare_tools(args, folder)
        report(args, title, rows, PACKAGES)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('annotations', type=Path, help='COCO instances file with masks')
    parser.add_argument('--contenders', nargs='*', choices=CONTENDERS, default=list(CONTENDERS), help='tools to run')
    parser.add_argument('--iou-types', nargs='+', choices=('bbox', 'segm'), default=['bbox', 'segm'])
    parser.add_argument('--sources', nargs='+', choices=SOURCES, default=SOURCES)
    parser.add_argument('--replicates', type=int, default=0, help='also time the command with intervals of this many replicates')
    parser.add_argument('--images', type=int, help='use only the first images of the file')
    parser.add_argument('--detections', type=int, default=500_000)
    parser.add_argument('--once-above', type=float, default=60, metavar='SECONDS',
                        help='a slower tool runs once per IoU type, from the first of --sources only')
    parser.add_argument('--val-images', type=int, default=0, help='time a val loop of this many images instead')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, help='keep the simulated detections here for the next run')
    add_options(parser, repeats=3)
    return parser.parse_args()


def prepare(args: argparse.Namespace, folder: Path) -> str:
    """Write the contenders' input, unless the folder contains it from the same settings; describe it in one sentence."""
    settings = dict(annotations=str(args.annotations), images=args.images, detections=args.detections, seed=args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / 'settings.json'
    if not done.exists() or json.loads(done.read_text(encoding='utf-8')) != settings:
        done.unlink(missing_ok=True)
        read_ground_truth(args.annotations)  # reports a broken file
        data = json.loads(args.annotations.read_text(encoding='utf-8'))
        data['images'] = data['images'][:args.images]
        kept = {image['id'] for image in data['images']}
        data['annotations'] = [entry for entry in data['annotations'] if entry['image_id'] in kept]
        (folder / 'annotations.json').write_text(json.dumps(data), encoding='utf-8')
        detections = simulate(data, args.detections, args.seed)
        detections.save(folder / 'detections.npz')
        for iou_type in ('bbox', 'segm'):
            write_results(detections.entries(iou_type), folder / f'{iou_type}.json')
        truth, buckets = read_ground_truth(data), make_buckets()
        members = bucket_members(image_ratios(truth), buckets)
        (folder / 'buckets.json').write_text(json.dumps({
            row.name: truth.image_ids[members[:, number]].tolist() for number, row in enumerate(buckets)}), encoding='utf-8')
        done.write_text(json.dumps(settings), encoding='utf-8')
    data = json.loads((folder / 'annotations.json').read_text(encoding='utf-8'))
    ends = SimulatedDetections.load(folder / 'detections.npz').ends
    return (f'{len(data["images"])} images, {len(data["annotations"])} instances, {len(ends)} simulated detections '
            f'(seed {args.seed}), masks of {ends[-1] / max(len(ends), 1):.0f} characters of run-length code on average.')


def compare_tools(args: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Run every tool, IoU type and source in turn."""
    compileall.compile_dir(HERE.parent / 'mmtied', quiet=1)
    runs: dict[tuple[str, str, str], list[dict]] = {}
    for turn in range(args.repeats):
        for iou_type in args.iou_types:
            for source in args.sources:
                for name in args.contenders:
                    earlier = [run['seconds'] for (of, kind, _), found in runs.items() if (of, kind) == (name, iou_type)
                               for run in found]
                    if earlier and max(earlier) > args.once_above:
                        continue
                    if source == 'command, files' and name != 'mmtied':
                        continue
                    run = run_command(args, folder, name, iou_type, source) if source.startswith('command') else start(
                        'contenders.py', folder, name, iou_type, source, folder, device=args.device)
                    runs.setdefault((name, iou_type, source), []).append(run)
                    print(f'{turn + 1}/{args.repeats} {name} {iou_type} {source}: {run["seconds"]:.2f} s', file=sys.stderr)
            if args.replicates and 'mmtied' in args.contenders:
                run = run_command(args, folder, 'mmtied', iou_type, 'command, files', args.replicates)
                runs.setdefault(('mmtied', iou_type, f'command, files, {args.replicates} replicates'), []).append(run)
    rows = []
    for (name, iou_type, source), found in runs.items():
        oracle = next(other for other in ('pycocotools', 'hotcoco', *args.contenders) if (other, iou_type) in {
            key[:2] for key in runs})
        expected = next(run[0]['rows'] for key, run in runs.items() if key[:2] == (oracle, iou_type) and run[0]['rows'])
        ours = [run['seconds'] for run in runs.get(('mmtied', iou_type, source), [])]
        rows.append({'tool': name, 'IoU type': iou_type, 'source': source, **spread([run['seconds'] for run in found]),
                     'times mmtied': ratio([run['seconds'] for run in found], ours),
                     'CPU seconds': f'{statistics.median(run["cpu_seconds"] for run in found):.2f}',
                     'peak MiB': '' if source.startswith('command') else
                     f'{statistics.median(run["peak_mib"] for run in found):.0f}',
                     'largest difference': 'oracle' if name == oracle else largest_difference(found[0]['rows'], expected)})
    return rows


def compare_val_loop(args: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Time mmtied's metric and CocoMetric on the same predictions."""
    runs = [start('val_loop.py', folder, folder, args.val_images, device=args.device) for _ in range(args.repeats)]
    total = {name: [sum(run['seconds'][name].values()) for run in runs] for name in runs[0]['seconds']}
    return [{'metric': name, **{f'{step}, s': f'{statistics.median(run["seconds"][name][step] for run in runs):.2f}'
                                for step in ('process', 'compute')},
             **spread(seconds), 'times mmtied': ratio(seconds, total['mmtied']),
             'largest difference (CocoMetric rounds)': f'{max(run["difference"] for run in runs):.1e}'}
            for name, seconds in total.items()]


def run_command(args: argparse.Namespace, folder: Path, name: str, iou_type: str, source: str, replicates: int = 0) -> dict:
    """Time the whole process of an evaluation from files, started as by a user.

    Raises:
        ValueError: The process failed.
    """
    command = [sys.executable, str(HERE / 'contenders.py'), name, iou_type, 'command', str(folder), str(folder / 'result.json')]
    if name == 'mmtied':
        command = [sys.executable, str(HERE.parent / 'tools' / 'occlusion_eval.py'), str(folder / 'annotations.json'),
                   str(folder / f'{iou_type}.json'), '--replicates', str(replicates)]
        command += ['--out', str(folder / 'occlusion')] if source == 'command, files' else []
    before, start_time = os.times(), time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start_time, os.times()
    check(run, command)
    rows = None
    if name != 'mmtied':
        rows = json.loads((folder / 'result.json').read_text(encoding='utf-8'))['rows']
    return dict(seconds=seconds, rows=rows, cpu_seconds=(
        after.children_user + after.children_system - before.children_user - before.children_system))


def start(script: str, folder: Path, *arguments: object, device: str) -> dict:
    """Run a script in a separate process, and return its result."""
    output = folder / 'result.json'
    output.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / script), *map(str, arguments), str(output), '--device', device]
    check(subprocess.run(command, capture_output=True, text=True), command)
    return json.loads(output.read_text(encoding='utf-8'))


def check(run: subprocess.CompletedProcess, command: list[str]) -> None:
    """Raise a ValueError with the last line of a failed process."""
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ['no message'])[-1]
        raise ValueError(f'{" ".join(command[1:])}: exit status {run.returncode}: {last}')


def largest_difference(rows: dict[str, list[float]] | None, expected: dict[str, list[float]]) -> str:
    """Return the largest absolute difference of any statistic; infinity if the buckets differ."""
    if rows is None:
        return ''
    if list(rows) != list(expected):
        return 'inf'
    return f'{np.abs(np.array(list(rows.values())) - np.array(list(expected.values()))).max():.1e}'


def spread(values: list[float]) -> dict[str, str]:
    """Return columns with the median, minimum and maximum seconds."""
    return {'seconds': f'{statistics.median(values):.2f}', 'lowest': f'{min(values):.2f}', 'highest': f'{max(values):.2f}'}


def ratio(values: list[float], ours: list[float]) -> str:
    """Return the median of the ratios to mmtied in the same turn."""
    return f'{statistics.median(value / own for value, own in zip(values, ours, strict=False)):.2f}' if ours else ''


if __name__ == '__main__':
    main()
