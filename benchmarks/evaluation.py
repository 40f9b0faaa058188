"""COCO evaluation by occlusion against other tools: time, memory and equality, and what it adds to a val loop.

Simulated detections (seeded) on real annotations are evaluated on all images and in eleven occlusion buckets. Each run is a
process of its own; the tools take turns. Times count from arrays in memory (`memory`; lists of run-length codes for masks) or
from a results file (`json`) to the whole table. CPU seconds add up all threads and change less on a busy machine. Peak memory
is what comes on top of the imports, the annotations and the input. The peers are handed the images of each bucket; ours works
them out within the time. With --device cuda boxes in memory, and the val loop's boxes and masks, are tensors on the GPU and stay
there; run-length codes are read and compared on the CPU, as pycocotools does it, and what follows is on the GPU.

    python benchmarks/evaluation.py ANNOTATIONS --docs docs/benchmarks.md
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from contenders import CONTENDERS
from machine import describe_machine
from report_section import check_page, markdown_table, write_section
from rich.console import Console
from rich.table import Table
from simulated_detections import SimulatedDetections, simulate, write_results

from mmtied.cli import user_errors
from mmtied.evaluation.buckets import assign_buckets, make_buckets
from mmtied.evaluation.inputs.ground_truth import read_ground_truth
from mmtied.evaluation.occlusion import image_ratios

HERE = Path(__file__).resolve().parent
PACKAGES = ('torch', 'numpy', *CONTENDERS)


def main() -> None:
    """Run the benchmark, print its tables and write its section."""
    args = parse_arguments()
    with user_errors(), tempfile.TemporaryDirectory() as temporary:
        if args.docs:
            check_page(args.docs)
        folder = args.work_dir or Path(temporary)
        sizes = prepare(args, folder)
        tables = [compare_tools(args, folder)] if args.contenders else []
        tables += [compare_val_loop(args, folder)] if args.val_images else []
        text = [f'{sizes} Medians of {args.repeat} interleaved runs, lowest to highest in brackets.', *tables,
                describe_machine(PACKAGES, args.device) + (f' {args.note}' if args.note else '')]
        if args.docs:
            heading = '## Evaluation' + ('' if args.device == 'cpu' else ' on a GPU')
            write_section(args.docs, f'evaluation {args.device}', '\n\n'.join([heading, *text]))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('annotations', type=Path, help='COCO instances file with masks')
    parser.add_argument('--contenders', nargs='*', choices=CONTENDERS, default=list(CONTENDERS), help='the tools to run')
    parser.add_argument('--iou-types', nargs='+', choices=('bbox', 'segm'), default=['bbox', 'segm'])
    parser.add_argument('--sources', nargs='+', choices=('memory', 'json'), default=['memory', 'json'])
    parser.add_argument('--images', type=int, help='take only the first images of the file')
    parser.add_argument('--detections', type=int, default=500_000)
    parser.add_argument('--repeat', type=int, default=3)
    parser.add_argument('--once-above', type=float, default=60, metavar='SECONDS',
                        help='a tool that takes longer runs once for each IoU type, from the first of --sources only')
    parser.add_argument('--val-images', type=int, default=300, help='images of the val loop; 0 leaves it out')
    parser.add_argument('--device', default='cpu', help='where mmtied works; the other tools have the CPU only')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, help='keep the simulated detections here, to be used again')
    parser.add_argument('--docs', type=Path, help='Markdown page whose section is written')
    parser.add_argument('--note', help='a sentence about the run for the section')
    return parser.parse_args()


def prepare(args: argparse.Namespace, folder: Path) -> str:
    """Write what the contenders read, unless it is there from the same settings; returns the sizes in words."""
    settings = dict(annotations=str(args.annotations), images=args.images, detections=args.detections, seed=args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / 'settings.json'
    if not done.exists() or json.loads(done.read_text()) != settings:
        done.unlink(missing_ok=True)
        truth = read_ground_truth(args.annotations)  # for its messages where the file is broken
        data = json.loads(args.annotations.read_text())
        data['images'] = data['images'][:args.images]
        kept = {image['id'] for image in data['images']}
        data['annotations'] = [entry for entry in data['annotations'] if entry['image_id'] in kept]
        (folder / 'annotations.json').write_text(json.dumps(data))
        detections = simulate(data, args.detections, args.seed)
        detections.save(folder / 'detections.npz')
        for iou_type in ('bbox', 'segm'):
            write_results(detections.entries(iou_type), folder / f'{iou_type}.json')
        truth, buckets = read_ground_truth(data), make_buckets()
        bucket = assign_buckets(image_ratios(truth), buckets)
        (folder / 'buckets.json').write_text(json.dumps({
            row.name: truth.image_ids[bucket == number].tolist() for number, row in enumerate(buckets)}))
        done.write_text(json.dumps(settings))
    data, length = json.loads((folder / 'annotations.json').read_text()), SimulatedDetections.load(folder / 'detections.npz').ends
    return (f'{len(data["images"])} images, {len(data["annotations"])} instances, {len(length)} simulated detections '
            f'(seed {args.seed}), masks of {length[-1] / max(len(length), 1):.0f} characters of run-length code on average.')


def compare_tools(args: argparse.Namespace, folder: Path) -> str:
    """Every tool, IoU type and source in turn; prints a table and returns it as Markdown."""
    runs: dict[tuple[str, str, str], list[dict]] = {}
    for turn in range(args.repeat):
        for iou_type in args.iou_types:
            for source in args.sources:
                for name in args.contenders:
                    earlier = [run['seconds'] for (of, kind, _), found in runs.items() if (of, kind) == (name, iou_type)
                               for run in found]
                    if earlier and max(earlier) > args.once_above:
                        continue
                    run = start('contenders.py', folder, name, iou_type, source, folder, device=args.device)
                    runs.setdefault((name, iou_type, source), []).append(run)
                    print(f'{turn + 1}/{args.repeat} {name} {iou_type} {source}: {run["seconds"]:.2f} s', flush=True)
    rows = []
    for iou_type in args.iou_types:
        oracle = next(name for name in ('pycocotools', 'hotcoco', *args.contenders)
                      if any(key[:2] == (name, iou_type) for key in runs))
        expected = next(found[0]['rows'] for key, found in runs.items() if key[:2] == (oracle, iou_type))
        for source in args.sources:
            ours = runs.get(('mmtied', iou_type, source))
            for name in args.contenders:
                found = runs.get((name, iou_type, source))
                if found:
                    rows.append([f'{name}, {iou_type} from {source}', spread([run['seconds'] for run in found]),
                                 ratio([run['seconds'] for run in found], [run['seconds'] for run in ours or []]),
                                 spread([run['cpu_seconds'] for run in found]),
                                 f'{statistics.median(run["peak_mib"] for run in found):.0f}',
                                 'oracle' if name == oracle else f'{largest_difference(found[0]["rows"], expected):.1e}'])
    return show('From detections to all images and eleven buckets',
                ['tool', 'seconds', 'times mmtied', 'CPU seconds', 'peak MiB', 'largest difference'], rows)


def compare_val_loop(args: argparse.Namespace, folder: Path) -> str:
    """Ours and CocoMetric on the same predictions; prints a table and returns it as Markdown."""
    runs = [start('val_loop.py', folder, folder, args.val_images, device=args.device) for _ in range(args.repeat)]
    total = {name: [sum(run['seconds'][name].values()) for run in runs] for name in runs[0]['seconds']}
    rows = [[name, *(spread([run['seconds'][name][step] for run in runs]) for step in ('process', 'compute')), spread(seconds),
             ratio(seconds, total['mmtied']), f'{max(run["difference"] for run in runs):.1e}']
            for name, seconds in total.items()]
    return show(f'Added to a val loop of {args.val_images} images, boxes and boolean masks on {args.device}',
                ['metric', 'process, s', 'compute, s', 'total, s', 'times mmtied', 'difference (CocoMetric rounds)'], rows)


def start(script: str, folder: Path, *arguments: object, device: str) -> dict:
    """The result of a script in a process of its own.

    Raises:
        ValueError: The process failed; with the last line that it wrote.
    """
    output = folder / 'result.json'
    output.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / script), *map(str, arguments), str(output), '--device', device]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode or not output.exists():
        last = (run.stderr.strip().splitlines() or ['no message'])[-1]
        raise ValueError(f'{script} {" ".join(map(str, arguments))} ended with status {run.returncode}: {last}')
    return json.loads(output.read_text())


def largest_difference(rows: dict[str, list[float]], expected: dict[str, list[float]]) -> float:
    """The largest absolute difference of any of the numbers; tables with different rows differ without bound."""
    if list(rows) != list(expected):
        return float('inf')
    return float(np.abs(np.array(list(rows.values())) - np.array(list(expected.values()))).max())


def spread(values: list[float]) -> str:
    """Median, lowest and highest."""
    return f'{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]'


def ratio(values: list[float], ours: list[float]) -> str:
    """The median of the runs' ratios to ours in the same turn, lowest and highest."""
    return spread([value / own for value, own in zip(values, ours, strict=False)]) if ours else '-'


def show(title: str, header: list[str], rows: list[list[str]]) -> str:
    """Print a table and return it as Markdown."""
    table = Table(title=title)
    for number, name in enumerate(header):
        table.add_column(name, justify='right' if number else 'left')
    for row in rows:
        table.add_row(*(cell.replace('[', r'\[') for cell in row))
    Console(width=130).print(table)
    return f'{title}:\n\n{markdown_table(header, rows)}'


if __name__ == '__main__':
    main()
