"""The section of docs/evidence.md on students of a trained network: tables, words and figure."""

import json
import statistics

from mmtied.tables import markdown_table

from . import tie_only, warm_start
from .detectors_section import band_words, describe_seeds, signed, spread
from .runs import Run

#: Student and start of each model, for readers.
TITLES = {'tied_s': ('TiedResNet-50-S', 'random weights'), 'tied_s_before': ('TiedResNet-50-S', 'distilled before'),
          'tied_s_distilled': ('TiedResNet-50-S', 'distilled meanwhile'),
          'tbc': ('ResNet-50, tied', 'random weights'), 'tbc_from_teacher': ('ResNet-50, tied', 'nearest tied weights')}
#: Each warm start, and the same student from random weights.
PAIRS = {'tied_s_before': 'tied_s', 'tied_s_distilled': 'tied_s', 'tbc_from_teacher': 'tbc'}
MEASURES = ('AP', 'AP75')


def compared_pairs(sides: dict[str, list[Run]]) -> dict[str, dict[str, list[Run]]]:
    """Return the two sides of each pair of which both have runs, by the warm start's name, the baseline first."""
    return {warm: {cold: sides[cold], warm: sides[warm]} for warm, cold in PAIRS.items() if {warm, cold} <= set(sides)}


def warm_start_section(preset: str, sides: dict[str, list[Run]], comparison: dict) -> str:
    """Return the section.

    Args:
        preset: Name of the settings.
        sides: The finished runs of each model.
        comparison: For each pair of `compared_pairs`, what `analysis.compare_models` found.
    """
    steps = next(iter(sides.values()))[0].read_summary()['steps']
    return f"""\
## A warm start without ImageNet

The ResNet-50 of seed 0 above is the teacher. TiedResNet-50-S imitates the feature maps of its stages, either alone in as many
steps before the detector is trained, or in the first half of the detector's training ([distillation](distill.md)). A ResNet-50
with all of its convolutions tied by {warm_start.NUM_BLOCKS} starts from the tied weights nearest to the teacher's
([tie](tie.md)). Each is compared with the same student from random weights, on the same images in the same order, with
{describe_seeds(sides)}.

{verdict(steps, comparison)}

![Box AP over the steps of training, from random weights and from the teacher](images/evidence_warm_start.png)

{values_table(sides)}

Differences in points, warm minus random, after {steps} steps:

{differences_table(comparison)}

{tied_only_table(preset)}
The teacher learned from the same images for as many steps, so a warm start costs its training too; the student that is distilled
before sees them for twice as many steps in all, which may be a part of its lead (its processor minutes below are without the
distillation). The one that is distilled meanwhile gives half of its steps to two aims at once, and its teacher, with a box AP of
{100 * last_ap(warm_start.teacher(preset)):.1f} %, is itself only {steps} steps old. Which of the two keeps it from being ahead
was not tested. Nothing here says what a teacher from ImageNet would add.
"""


def verdict(steps: int, comparison: dict) -> str:
    """Answer in words made from the numbers whether each warm start is ahead."""
    lines = ['**Is a warm start ahead at equal steps?**', '']
    for warm, found in comparison.items():
        row = found['bbox']['all']['AP'][warm]
        said = 'ahead' if row['low'] > 0 else 'behind' if row['high'] < 0 else 'neither ahead nor behind by more than chance'
        student, start = TITLES[warm]
        lines.append(f'- {student}, {start}: {said} after {steps} steps, {signed(row)} points of box AP.')
    return '\n'.join(lines)


def course(run: Run) -> dict[int, float]:
    """Return the box AP of a run by the step at which it was evaluated."""
    summary = run.read_summary()
    found = {step: metrics['coco/bbox_mAP'] for step, metrics in summary['validations']}
    return {**found, summary['steps']: last_ap(run)}


def last_ap(run: Run) -> float:
    """Return the box AP of a run at its end."""
    return json.loads((run.results / 'report.json').read_text(encoding='utf-8'))['bbox']['all']['AP']


def values_table(sides: dict[str, list[Run]]) -> str:
    """Return the table of box AP over the steps."""
    courses = {model: [course(run) for run in side] for model, side in sides.items()}
    steps = list(next(iter(courses.values()))[0])
    rows = [[*TITLES[model], f'{sides[model][0].read_summary()["backbone_parameters"] / 1e6:.2f}M',
             *(spread([100 * found[step] for found in of_model]) for step in steps)] for model, of_model in courses.items()]
    header = ['student', 'start', 'parameters', *(f'box AP in %, step {step}' for step in steps)]
    return markdown_table(header, rows)


def differences_table(comparison: dict) -> str:
    """Return the table of paired differences of each pair."""
    rows = [[TITLES[warm][0], TITLES[warm][1], f'{name} {measure}', *(signed(of_type[band][measure][warm]) for band in of_type)]
            for warm, found in comparison.items() for name, of_type in (('box', found['bbox']), ('mask', found['segm']))
            for measure in MEASURES]
    return markdown_table(['student', 'start', '', *band_words(warm_start.QUESTION).values()], rows)


def tied_only_table(preset: str) -> str:
    """Return the table of the teacher with nearest tied weights and no further training, empty without results."""
    found = tie_only.read_results(preset)
    if not found:
        return ''
    rows = [['none', '0', '', '', f'{100 * last_ap(warm_start.teacher(preset)):.1f}']]
    rows += [['no limit' if row['budget'] is None else f'{row["budget"]:g}', row['layers'], f'{row["weights"] / 1e6:.2f}M',
              f'{row["tied_weights"] / 1e6:.2f}M', f'{100 * row["AP"]:.1f}'] for row in found]
    table = markdown_table(['error up to', 'layers tied', 'their weights', 'tied weights', 'box AP in %'], rows)
    return f"""\
What the teacher loses when its layers become the nearest tied ones, without further training. Those that save most come first, as
long as the root mean square of all layers' relative errors stays below a limit; the last row ties all but the first:

{table}
"""


def draw_courses(sides: dict[str, list[Run]]):
    """Draw box AP over the steps: the mean over seeds of each model, and every seed."""
    from mmtied.plotting import hide_spines, new_figure
    starts = {cold: [cold, *(warm for warm in PAIRS if PAIRS[warm] == cold and warm in sides)]
              for cold in PAIRS.values() if cold in sides}
    figure = new_figure(1.5 + 4.5 * len(starts), 3.6)
    panels = figure.subplots(1, len(starts), sharey=True, squeeze=False)[0]
    for panel, models in zip(panels, starts.values(), strict=True):
        for number, model in enumerate(models):
            courses = [course(run) for run in sides[model]]
            steps = list(courses[0])
            for found in courses:
                panel.plot(steps, [100 * found[step] for step in steps], color=f'C{number}', lw=.7, alpha=.5)
            panel.plot(steps, [100 * statistics.mean(found[step] for found in courses) for step in steps], color=f'C{number}',
                       marker='osD'[number], ms=4, lw=2, label=TITLES[model][1])
        panel.set_title(TITLES[models[0]][0])
        panel.set_xlabel('step of training')
        panel.set_xticks(steps)
        panel.set_ylim(bottom=0)
        panel.legend(frameon=False, loc='lower right')
        hide_spines(panel)
    panels[0].set_ylabel('box AP in %')
    return figure
