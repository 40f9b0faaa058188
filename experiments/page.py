#!/usr/bin/env python
"""Write docs/evidence.md and its figures from experiments/results, comparing new runs first."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import cells, classification, occlusion, warm_start  # noqa: E402
from experiments.analysis import compare_models  # noqa: E402
from experiments.classification import CLASSIFIERS, classification_section  # noqa: E402
from experiments.detectors_section import CONTROLS, MEASURES, TITLES, Detectors, describe_seeds  # noqa: E402
from experiments.runs import RESULTS, Run, planned_runs  # noqa: E402
from mmtied.atomic import save_text  # noqa: E402
from mmtied.cli import user_errors  # noqa: E402
from mmtied.evaluation import Bootstrap  # noqa: E402
from mmtied.tables import markdown_table  # noqa: E402

PAGE = ROOT / 'docs/evidence.md'
IMAGES = ROOT / 'docs/images'
#: base_channels of the paper's networks.
WIDTH = 64
HALF_WIDTH = """ At half the width, splits of TiedResNet-50-S have 9 channels, so they are tied by 3 where the full network
ties by 2."""


def main() -> None:
    """Parse the command line, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--preset', choices=list(occlusion.PRESETS), default='cpu')
    parser.add_argument('--redraw', action='store_true', help='also redraw the figures of old results')
    args = parser.parse_args()
    with user_errors():
        write_page(args.preset, args.redraw)
    print(f'wrote {PAGE.relative_to(ROOT)}')


def write_page(preset: str, redraw: bool = False) -> None:
    """Compare and draw new results, and write the page."""
    for experiment in (occlusion, cells):
        figure = IMAGES / f'evidence_{name_of(experiment)}.png'
        is_new = redraw or not figure.is_file() or not is_compared(experiment, preset)
        detectors = compared(experiment, preset)
        if detectors and is_new:
            detectors.draw_over_r().savefig(figure)
    students, pairs = compared_students(preset)
    if pairs:
        warm_start.draw_courses(students).savefig(IMAGES / 'evidence_warm_start.png')
    save_text(PAGE, make_page(preset))


def name_of(experiment: ModuleType) -> str:
    """Return the name of an experiment."""
    return experiment.__name__.rpartition('.')[2]


def finished(experiment: ModuleType, preset: str) -> dict[str, list[Run]]:
    """Return the finished runs of each model of an experiment, without models that have none."""
    runs = planned_runs(name_of(experiment), preset, experiment.MODELS, experiment.PRESETS[preset].seeds)
    sides = {model: [run for run in runs if run.model == model and run.is_done] for model in experiment.MODELS}
    return {model: side for model, side in sides.items() if side}


def compared(experiment: ModuleType, preset: str) -> Detectors | None:
    """Return the comparison of the models, stored in ``comparison.json`` until there are new runs; None without runs."""
    sides = finished(experiment, preset)
    if not sides:
        return None
    if 'r50' not in sides:
        raise ValueError(f'{name_of(experiment)}, preset {preset}: no finished run of r50, the baseline; '
                         f'train it with python experiments/run.py {name_of(experiment)} --preset {preset} --only r50/*')
    question, bootstrap = experiment.QUESTION, Bootstrap(statistics=MEASURES)
    found = kept_comparison(experiment, preset, sides, lambda: {
        **compare_models(sides, question, bootstrap),
        'controls': {model: compare_models({control: sides[control], model: sides[model]}, question, bootstrap)
                     for model, control in CONTROLS.items() if {model, control} <= set(sides)}})
    return Detectors(experiment, sides, found)


def compared_students(preset: str) -> tuple[dict[str, list[Run]], dict]:
    """Return the finished students of the warm start, and the comparison of each with its twin from random weights."""
    sides = finished(warm_start, preset)
    bootstrap = Bootstrap(statistics=warm_start.MEASURES)
    pairs = warm_start.compared_pairs(sides)
    found = kept_comparison(warm_start, preset, sides, lambda: {
        warm: compare_models(pair, warm_start.QUESTION, bootstrap) for warm, pair in pairs.items()}) if pairs else {}
    return sides, {warm: found[warm] for warm in pairs}


def comparison_path(experiment: ModuleType, preset: str) -> Path:
    """Return the path of an experiment's stored comparison."""
    return RESULTS / preset / name_of(experiment) / 'comparison.json'


def is_compared(experiment: ModuleType, preset: str) -> bool:
    """Return True if the stored comparison covers all finished runs."""
    path, sides = comparison_path(experiment, preset), finished(experiment, preset)
    return path.is_file() and json.loads(path.read_text(encoding='utf-8'))['runs'] == names_of(sides)


def names_of(sides: dict[str, list[Run]]) -> list[str]:
    """Return the names of all runs."""
    return [run.name for side in sides.values() for run in side]


def kept_comparison(experiment: ModuleType, preset: str, sides: dict[str, list[Run]], compare: Callable[[], dict]) -> dict:
    """Return the result of a function, stored in the experiment's ``comparison.json`` until there are new runs."""
    path = comparison_path(experiment, preset)
    if not is_compared(experiment, preset):
        save_text(path, json.dumps({'runs': names_of(sides), **compare()}, indent=1) + '\n')
    return json.loads(path.read_text(encoding='utf-8'))


def make_page(preset: str) -> str:
    """Return the page as Markdown.

    Raises:
        ValueError: There are no results with the preset.
    """
    settings = occlusion.PRESETS[preset]
    is_half = settings.base_channels == WIDTH // 2
    shapes, blood, classifiers = compared(occlusion, preset), compared(cells, preset), finished(classification, preset)
    if not shapes:
        raise ValueError(f'no results of the preset {preset}; train them with python experiments/run.py occlusion --preset '
                         f'{preset}')
    sides = shapes.sides
    first = sides['r50'][0].read_summary()
    parts = [f"""# Evidence

Written by `python experiments/page.py` from the results in `experiments/results`.

The paper reports +5.9 AP and +8.3 AP75 over ResNet-50 where 80 % of the instance area overlaps, from one training on COCO,
without an interval. This page tests that claim at a small scale: {'half as wide, ' if is_half else ''}from scratch, on
generated shapes and on photographs of blood cells.

## Controlled occlusion

Images of [occluded shapes](occluded_shapes.md) have the same number, categories and visible sizes of objects at every r, so that
only occlusion changes. Mask R-CNN is trained on them from scratch for {first['steps']} steps of {first['batch_size']} images of
{settings.size} x {settings.size} pixels, with the same recipe for all backbones and {describe_seeds(sides)}, and evaluated on
{settings.val_images} other images. Two controls separate tying from its side effects: the *grouped twin* is TiedResNet-50 with
grouped convolutions, which share no filters, in place of the tied ones; the *narrow ResNet-50* has as many parameters as
TiedResNet-50-S.{HALF_WIDTH if is_half else ''}

{shapes.verdict()}

![AP over r of each backbone, and the paired differences from ResNet-50](images/evidence_occlusion.png)
"""]
    parts += shapes.tables()
    parts.append("""\
Values are means over seeds, ± their standard deviation. Differences are paired on images, and their 95 % intervals
cover images and seeds together ([method](statistics.md#seeds)). *Duplicates* are repeated detections of an object, per 100
objects, at the score where precision is 50 %; fewer are better. *Change of the difference* is the
difference at r ≥ 0.8 minus that at r < 0.2: the claim is that it is above zero for AP. The figures show the buckets of 20
images or more, which have intervals.
""")
    if blood:
        parts.append(cells_section(preset, blood))
    if classifiers:
        parts.append(classification_section(preset, classifiers))
    students, pairs = compared_students(preset)
    if pairs:
        parts.append(warm_start.warm_start_section(preset, students, pairs))
    parts.append(f"""\
## What this does not show

- The networks are {"half as wide as the paper's and " if is_half else ''}trained from scratch for {first['steps']} steps; the
  paper's are pretrained on ImageNet and trained on COCO for 24 epochs. A gain from ImageNet features cannot appear here.
- The shapes have texture and shadows, and six categories. They are not photographs.
- The paper prints no layer table; the structure of the tied networks is [fitted to its sizes](tied_resnet.md).
- The page has many intervals; one in twenty misses by chance.

## Cost

{cost_table(sides, blood.sides if blood else {}, classifiers, students)}

`python experiments/run.py occlusion --jobs 2` trains the missing runs, and `--preset gpu` a larger version with
{occlusion.PRESETS['gpu'].seeds} seeds at full width; `experiments/data.md` lists the data for the other experiments. With one
thread, runs are reproducible: ResNet-50's seed 0, trained again on another machine of the same kind from regenerated images,
logged the same losses and reached the same AP to the last digit.
""")
    return '\n'.join(parts)


def cells_section(preset: str, detectors: Detectors) -> str:
    """Return the section of real images."""
    settings = cells.PRESETS[preset]
    steps = next(iter(detectors.sides.values()))[0].read_summary()['steps']
    tables = '\n'.join(detectors.tables())
    images, low, high = (detectors.comparison['bbox'][band]['AP']['r50']['images'] for band in detectors.question.bands)
    return f"""\
## Real images: blood cells

Faster R-CNN is trained on [BCCD](https://github.com/Shenggan/BCCD_Dataset) from scratch for {steps} steps of
{settings.batch_size} images of {settings.size[0]} x {settings.size[1]} pixels, with the same backbones and
{describe_seeds(detectors.sides)}, and evaluated on the {images} images of the validation and test splits. No image has more
than half of its cells' area covered, so the ends are {detectors.words[detectors.low]} ({low} images) and
{detectors.words[detectors.high]} ({high} images).

{detectors.verdict()}

![AP over r of each backbone, and the paired differences from ResNet-50](images/evidence_cells.png)

{tables}"""


def cost_table(shapes: dict[str, list[Run]], blood: dict[str, list[Run]], classifiers: dict[str, list[Run]],
               students: dict[str, list[Run]]) -> str:
    """Return the table of training costs."""
    rows = [*cost(shapes, TITLES, 'shapes'), *cost(blood, TITLES, 'blood cells'), *cost(classifiers, CLASSIFIERS, 'CIFAR-10'),
            *cost(students, {model: ', '.join(title) for model, title in warm_start.TITLES.items()}, 'shapes')]
    return markdown_table(['network', 'data', 'runs', 'processor minutes', 'machine'], rows)


def cost(sides: dict[str, list[Run]], titles: dict[str, str], data: str) -> list[list]:
    """Return the rows of one experiment."""
    rows = []
    for model, side in sides.items():
        summaries = [run.read_summary() for run in side]
        minutes = [summary['processor_seconds'] / 60 for summary in summaries if not summary['resumed']]
        took = ' to '.join(dict.fromkeys(f'{end(minutes):.0f}' for end in (min, max))) if minutes else ''
        devices = ', '.join(sorted({summary['device'] for summary in summaries}))
        rows.append([titles[model], data, len(side), took, f'{devices}, {summaries[0]["threads"]} thread'])
    return rows


if __name__ == '__main__':
    main()
