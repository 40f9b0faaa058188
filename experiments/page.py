#!/usr/bin/env python
"""Write docs/evidence.md and its figures from the results in experiments/results; what is new is compared first."""

import argparse
import json
import statistics
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments import classification, occlusion  # noqa: E402
from experiments.analysis import BANDS, CONTRAST, compare_models  # noqa: E402
from experiments.runs import RESULTS, Run, planned_runs  # noqa: E402
from mmtied.atomic import atomic_path  # noqa: E402
from mmtied.evaluation import Bootstrap, compare, read_records  # noqa: E402
from mmtied.tables import markdown_table  # noqa: E402

PAGE = ROOT / 'docs/evidence.md'
IMAGES = ROOT / 'docs/images'
#: Names of the models for readers.
TITLES = {'r50': 'ResNet-50', 'tied': 'TiedResNet-50', 'tied_s': 'TiedResNet-50-S', 'grouped': 'grouped twin',
          'r50_narrow': 'narrow ResNet-50'}
CLASSIFIERS = {'plain': 'plain, 16 wide', 'grouped': 'grouped by 2, 22 wide', 'tied': 'tied by 2, 22 wide',
               'igc': 'interleaved (IGC), 48 wide', 'shared': 'shared filter bases'}
BANDS_IN_WORDS = {'all': 'all images', 'r < 0.2': 'r < 0.2', 'r >= 0.8': 'r ≥ 0.8', CONTRAST: 'change of the difference'}
MEASURES = ('AP', 'AP75', 'duplicates')
IOU_TYPES = {'bbox': 'boxes', 'segm': 'masks'}


def main() -> None:
    """Compare what is new, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--preset', choices=list(occlusion.PRESETS), default='cpu')
    preset = parser.parse_args().preset
    sides = finished(occlusion, preset)
    comparison = compared(preset, sides)
    draw_over_r(sides).savefig(IMAGES / 'evidence_occlusion.png')
    write(PAGE, make_page(preset, sides, comparison))
    print(f'wrote {PAGE.relative_to(ROOT)}')


def finished(experiment: ModuleType, preset: str) -> dict[str, list[Run]]:
    """Return the finished runs of each model of an experiment; models without one are left out."""
    name = experiment.__name__.rpartition('.')[2]
    runs = planned_runs(name, preset, experiment.MODELS, experiment.PRESETS[preset].seeds)
    sides = {model: [run for run in runs if run.model == model and run.is_done] for model in experiment.MODELS}
    return {model: side for model, side in sides.items() if side}


def compared(preset: str, sides: dict[str, list[Run]]) -> dict:
    """Return the comparison of the models, which is kept in ``comparison.json`` until there are more runs."""
    path = RESULTS / preset / 'occlusion/comparison.json'
    runs = [run.name for side in sides.values() for run in side]
    if path.is_file():
        kept = json.loads(path.read_text(encoding='utf-8'))
        if kept['runs'] == runs:
            return kept
    found = {'runs': runs, **compare_models(sides, list(IOU_TYPES), Bootstrap(statistics=MEASURES))}
    write(path, json.dumps(found, indent=1) + '\n')
    return found


def make_page(preset: str, sides: dict[str, list[Run]], comparison: dict) -> str:
    """Return the page as Markdown."""
    settings = occlusion.PRESETS[preset]
    first = sides['r50'][0].read_summary()
    parts = [f"""# Evidence

Written by `python experiments/page.py` from the results of each run, which are kept in `experiments/results`.

The paper reports +5.9 AP and +8.3 AP75 over ResNet-50 where 80 % of the instance area overlaps, from one training on COCO and
without an interval. This page tests that claim at a small scale: half as wide, from scratch, on generated shapes.

## Controlled occlusion

Images of [occluded shapes](occluded_shapes.md) have the same number, categories and visible sizes of objects at every r, so that
only occlusion changes. Mask R-CNN learns them from scratch in {first['steps']} steps of {first['batch_size']} images of
{settings.size} x {settings.size} pixels, by the same recipe for all backbones, with {describe_seeds(sides)}. It is evaluated on
{settings.val_images} other images. Two backbones separate what tying may do from what it brings along: the *grouped twin* is
TiedResNet-50 with grouped convolutions, which share no filter, in place of the tied ones; the *narrow ResNet-50* has as many
parameters as TiedResNet-50-S. At half the width, splits of TiedResNet-50-S have 9 channels, so that they are tied by 3 where the
full network ties by 2.

{verdict(comparison, sides)}

![AP over r of each backbone, and the paired differences to ResNet-50](images/evidence_occlusion.png)
"""]
    parts += [values_table(iou_type, comparison, sides) for iou_type in IOU_TYPES]
    parts += [differences_table(iou_type, comparison, sides) for iou_type in IOU_TYPES]
    parts.append("""\
Values are means over seeds, ± their standard deviation. Differences are paired on images, and their 95 % intervals
cover images and seeds together ([method](statistics.md#seeds)). *Duplicates* are detections that find a found object
again, for 100 objects, at the score where precision is 50 %; fewer are better. *Change of the difference* is the
difference at r ≥ 0.8 minus that at r < 0.2: the claim is that it is above zero for AP.
""")
    classifiers = finished(classification, preset)
    if classifiers:
        parts.append(classification_section(preset, classifiers))
    parts.append(f"""\
## What this does not show

- The networks are half as wide as the paper's and trained from scratch for {first['steps']} steps; the paper's are pretrained on
  ImageNet and trained on COCO for 24 epochs. A gain that needs features of ImageNet cannot appear here.
- The shapes have texture and shadows, and six categories. They are not photographs.
- The paper prints no layer table; the structure of the tied networks is [fitted to its sizes](tied_resnet.md).
- Many intervals are read here: one in twenty misses by chance.

## Cost

{markdown_table(['network', 'runs', 'processor minutes', 'machine'], [*cost(sides, TITLES), *cost(classifiers, CLASSIFIERS)])}

`python experiments/run.py occlusion --jobs 2` trains what is missing here, `--preset gpu` a larger version with
{occlusion.PRESETS['gpu'].seeds} seeds at full width. With one thread a run repeats itself: the first 75
steps of ResNet-50's seed 0, trained again, logged the same losses.
""")
    return '\n'.join(parts)


def describe_seeds(sides: dict[str, list[Run]]) -> str:
    """Say how many seeds each model has."""
    fewest, *_, most = sorted(len(side) for side in [*sides.values(), *sides.values()])
    if fewest == most:
        return 'one seed each' if most == 1 else f'{most} seeds each'
    return f'{fewest} {"or" if most == fewest + 1 else "to"} {most} seeds each'


def verdict(comparison: dict, sides: dict[str, list[Run]]) -> str:
    """Answer the question of the experiment in words made from its numbers."""
    sentences = []
    for model in ('tied', 'tied_s'):
        if model not in sides:
            continue
        low, high, change = (comparison['bbox'][band]['AP'][model] for band in ('r < 0.2', 'r >= 0.8', CONTRAST))
        trend = ('rises with occlusion' if change['low'] > 0 else 'falls with occlusion' if change['high'] < 0
                 else 'does not change with occlusion by more than chance')
        there = ('a gain' if high['low'] > 0 else 'a loss' if high['high'] < 0
                 else 'neither a gain nor a loss that can be told from chance')
        sentences.append(f'- {TITLES[model]} minus ResNet-50, box AP: {signed(low)} at r < 0.2, {signed(high)} at r ≥ 0.8. The '
                         f'difference {trend} ({signed(change)}); at r ≥ 0.8 it is {there}.')
    if any(len(side) < 2 for side in sides.values()):
        sentences.append('\nWhere a model has one seed, its part of the interval covers the choice of images, not the seed.')
    return '\n'.join(['**Is there a gain at r ≥ 0.8, and is it larger than at r < 0.2?**', '', *sentences])


def signed(row: dict) -> str:
    """Write a difference with its interval, in points of AP."""
    return f'{100 * row["difference"]:+.1f} [{100 * row["low"]:+.1f}, {100 * row["high"]:+.1f}]'


def values_table(iou_type: str, comparison: dict, sides: dict[str, list[Run]]) -> str:
    """Return the table of values of one IoU type."""
    def cell(band: str, measure: str, model: str) -> str:
        return spread([100 * value for value in comparison[iou_type][band][measure][model]['seeds']])

    columns = [(measure, band) for measure in MEASURES for band in BANDS if measure != 'AP75' or band != 'all']
    header = ['backbone', 'parameters', *(f'{measure}, {BANDS_IN_WORDS[band]}' for measure, band in columns)]
    rows = [[TITLES[model], f'{side[0].read_summary()["backbone_parameters"] / 1e6:.2f}M',
             *(cell(band, measure, model) for measure, band in columns)] for model, side in sides.items()]
    return f'In %, {IOU_TYPES[iou_type]}:\n\n{markdown_table(header, rows)}\n'


def differences_table(iou_type: str, comparison: dict, sides: dict[str, list[Run]]) -> str:
    """Return the table of paired differences to the first model of one IoU type."""
    header = ['minus ResNet-50', '', *BANDS_IN_WORDS.values()]
    rows = [[TITLES[model], measure, *(signed(comparison[iou_type][band][measure][model]) for band in BANDS_IN_WORDS)]
            for model in list(sides)[1:] for measure in MEASURES]
    return f'Differences in points, {IOU_TYPES[iou_type]}:\n\n{markdown_table(header, rows)}\n'


def cost(sides: dict[str, list[Run]], titles: dict[str, str]) -> list[list]:
    """Return the rows of the table of what the trainings cost."""
    rows = []
    for model, side in sides.items():
        summaries = [run.read_summary() for run in side]
        minutes = [summary['processor_seconds'] / 60 for summary in summaries if not summary['resumed']]
        took = ' to '.join(dict.fromkeys(f'{end(minutes):.0f}' for end in (min, max))) if minutes else ''
        devices = ', '.join(sorted({summary['device'] for summary in summaries}))
        rows.append([titles[model], len(side), took, f'{devices}, {summaries[0]["threads"]} thread'])
    return rows


def classification_section(preset: str, sides: dict[str, list[Run]]) -> str:
    """Return the section of CIFAR-10: accuracy, and how alike the filters of the trained networks are."""
    summaries = {model: [run.read_summary() for run in side] for model, side in sides.items()}
    rows = []
    for model, runs in summaries.items():
        first = runs[0]
        rows.append([CLASSIFIERS[model], f'{first["backbone_parameters"] / 1e3:.0f}k', f'{first["multiply_adds"] / 1e6:.1f}M',
                     spread([run['accuracy'] for run in runs]), spread([run['weights']['mean'] for run in runs], 3),
                     f'{first["weights"]["by_chance"]:.3f}', spread([run['patterns']['mean'] for run in runs], 2),
                     spread([100 * run['patterns']['above_half'] for run in runs])])
    header = ['3x3 convolutions', 'parameters', 'multiply-adds', 'accuracy in %', 'cosine of weights', 'by chance',
              'cosine of patterns', 'pairs above 0.5, in %']
    settings = classification.PRESETS[preset]
    return f"""\
## Classification, and how alike filters are

CIFAR-10 in {settings.epochs} epochs with batches of {settings.batch_size}, {describe_seeds(sides)}; all networks have 20 layers
and IGC's recipe with a cosine schedule. The plain, grouped and tied networks are as wide as about the same multiply-adds allow.
Wang & Yu take filters that respond alike for redundant ones (Figures 1 and 9), and report that tied ones are less alike.

{verdict_on_filters(summaries)}

{markdown_table(header, rows)}

Values are means over seeds, ± their standard deviation. *Cosine of weights*: mean absolute cosine of each two filters that see
the same channels, and the same of filters drawn at random, which is larger the fewer weights a filter has. *Cosine of patterns*:
mean cosine of what each two of a layer's first 32 filters respond to in 32 test images, by guided backpropagation, over the
layers at a quarter, half, three quarters and the end of the network.
"""


def verdict_on_filters(summaries: dict[str, list[dict]]) -> str:
    """Answer in words made from the numbers whether the filters of the tied network are less alike than the plain one's."""
    if not {'plain', 'tied'} <= set(summaries):
        return ''
    plain, tied = ([run['patterns']['mean'] for run in summaries[model]] for model in ('plain', 'tied'))
    order = ('less alike than' if max(tied) < min(plain) else 'more alike than' if min(tied) > max(plain)
             else 'as alike, as far as these seeds can tell, as')
    accuracies = [statistics.mean(run['accuracy'] for run in summaries[model]) for model in ('tied', 'plain')]
    return (f'**Do tied filters correlate less?** Those of the tied network respond {order} those of the plain one: cosine '
            f'{statistics.mean(tied):.2f} against {statistics.mean(plain):.2f}. It is right on {accuracies[0]:.1f} % of the test '
            f'images, the plain one on {accuracies[1]:.1f} %.')


def spread(values: list[float], digits: int = 1) -> str:
    """Write the mean of some seeds and their standard deviation."""
    deviation = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.{digits}f}{deviation}'


def draw_over_r(sides: dict[str, list[Run]]):
    """Draw the mean AP of each model over r, and its paired difference to the first with intervals."""
    from mmtied.plotting import hide_spines, new_figure
    comparison = compare(*([read_records(run.results) for run in side] for side in sides.values()),
                         names=[TITLES[model] for model in sides]).report['evaluations'][0]
    figure = new_figure(10, 6.4)
    panels = figure.subplots(2, 2, sharex=True, sharey='row', height_ratios=[1.2, 1])
    for column, (iou_type, words) in enumerate(IOU_TYPES.items()):
        buckets = [bucket for bucket in comparison[iou_type]['buckets'] if bucket['images']]
        top, bottom = panels[:, column]
        for number, title in enumerate(TITLES[model] for model in sides):
            color, marker = f'C{number}', 'osD^v'[number]
            top.plot(range(len(buckets)), [100 * bucket['AP']['values'][number] for bucket in buckets], color=color,
                     marker=marker, ms=4, label=title)
            if number:
                rows = [bucket['AP']['differences'][number - 1] for bucket in buckets]
                places = [place + (number - 2.5) * .15 for place in range(len(rows))]
                reach = [100 * (row['high'] - row['difference']) for row in rows]
                bottom.errorbar(places, [100 * row['difference'] for row in rows], reach, fmt=marker, color=color, ms=4, lw=1)
        bottom.axhline(0, color='0.4', lw=.8)
        top.set_title(f'{words}, means of {describe_seeds(sides)}')
        bottom.set_xticks(range(len(buckets)), [bucket['name'] for bucket in buckets], rotation=45, ha='right', fontsize=8)
        bottom.set_xlabel('occlusion ratio r')
        hide_spines(top)
        hide_spines(bottom)
    panels[0, 0].set_ylabel('AP in %')
    panels[1, 0].set_ylabel('AP minus ResNet-50, points')
    panels[0, 1].legend(frameon=False, fontsize=9)
    return figure


def write(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
