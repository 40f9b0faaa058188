"""Warm start: tied students of a trained ResNet-50, by distillation or nearest tied weights, against random weights."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config

from mmtied.cli import repository_path
from mmtied.launch.convert import tied_conv_cfg, write_tied
from mmtied.tables import markdown_table

from . import occlusion, tie_only, training
from .backbones import backbones
from .detectors_section import band_words, describe_seeds, signed, spread
from .runs import Run

#: TiedResNet-50-S from random weights, distilled before the detector's training, and distilled during it; and a ResNet-50 with
#: tied convolutions, from random weights and from the tied weights nearest to the teacher's.
MODELS = ('tied_s', 'tied_s_before', 'tied_s_distilled', 'tbc', 'tbc_from_teacher')
QUESTION = occlusion.QUESTION
PRESETS = occlusion.PRESETS
prepare = occlusion.prepare
#: Student and start of each model, for the page.
TITLES = {'tied_s': ('TiedResNet-50-S', 'random weights'), 'tied_s_before': ('TiedResNet-50-S', 'distilled before'),
          'tied_s_distilled': ('TiedResNet-50-S', 'distilled meanwhile'),
          'tbc': ('ResNet-50, tied', 'random weights'), 'tbc_from_teacher': ('ResNet-50, tied', 'nearest tied weights')}
#: Each warm start, and its student from random weights.
PAIRS = {'tied_s_before': 'tied_s', 'tied_s_distilled': 'tied_s', 'tbc_from_teacher': 'tbc'}
MEASURES = ('AP', 'AP75')
NUM_BLOCKS = 2
#: Evaluations during a run, the last one at its end.
EVALUATIONS = 4


def teacher(preset: str) -> Run:
    """Return the run whose backbone is the teacher: ResNet-50 with the first seed."""
    return Run('occlusion', preset, 'r50', 0)


def trained_teacher(preset: str, work_root: Path) -> Path:
    """Return the teacher's checkpoint.

    Raises:
        ValueError: The checkpoint is missing.
    """
    trained = teacher(preset)
    weights = trained.work_dir(work_root) / f'epoch_{PRESETS[preset].epochs}.pth'
    if not weights.is_file():
        raise ValueError(f'{weights} (the teacher) is missing; delete {trained.results} if it exists, and train it with '
                         f'python experiments/run.py occlusion --preset {preset} --only {trained.name}')
    return weights


def num_steps(preset: str) -> int:
    """Return the number of training steps of a detector, and of a distillation before it."""
    settings = PRESETS[preset]
    return settings.epochs * settings.train_images // settings.batch_size


def distill_before(run: Run, root: Path, work_root: Path) -> Path:
    """Distill the teacher into a student's backbone with `mmtied distill`; return the path of its weights.

    Raises:
        ValueError: The teacher's checkpoint is missing, or the command failed.
    """
    folder = run.work_dir(work_root) / 'distillation'
    weights = folder / 'backbone.pth'
    if weights.is_file():
        return weights
    trained = trained_teacher(run.preset, work_root)
    folder.mkdir(parents=True, exist_ok=True)
    configs = [folder / f'{model}.py' for model in ('r50', 'tied_s')]
    for path in configs:
        occlusion.make_config(path.stem, run.preset, root).dump(path)
    settings = PRESETS[run.preset]
    options = {'weights': trained, 'images': occlusion.data_folder(run.preset, root) / 'train2017', 'work-dir': folder,
               'iters': num_steps(run.preset), 'batch-size': 2 * settings.batch_size, 'size': settings.size, 'workers': 0,
               'seed': run.seed, 'save-every': 200}
    resume = ['--resume'] if (folder / 'last_checkpoint').is_file() else []
    words = [str(word) for name, value in options.items() for word in (f'--{name}', value)]
    command = [sys.executable, repository_path('tools/distill.py'), *configs, *words, *resume]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ValueError(f'{run.name}: mmtied distill ended with exit code {code}')
    return weights


def make_config(run: Run, root: Path, work_root: Path) -> Config:
    """Return the config of a student; from random weights it is that of the occlusion experiment.

    Raises:
        ValueError: The teacher's checkpoint is missing.
    """
    model, preset, settings = run.model, run.preset, PRESETS[run.preset]
    choices = backbones(settings.base_channels)
    cfg = occlusion.make_config('tied_s' if model.startswith('tied_s') else 'r50', preset, root)
    hooks = [dict(type='ValidateWithinEpochs', interval=num_steps(preset) // EVALUATIONS)]
    if model == 'tied_s_before':
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(distill_before(run, root, work_root)))
    if model == 'tied_s_distilled':
        hooks.append(dict(type='mmtied.DistillationHook', teacher=dict(choices['r50']),
                          weights=str(trained_teacher(preset, work_root)), loss_weight=2., schedule='cosine', end=.5))
    if model == 'tbc_from_teacher':
        tied = work_root / preset / 'warm_start/tied_teacher.pth'
        write_tied(occlusion.make_config('r50', preset, root), str(trained_teacher(preset, work_root)), tied, NUM_BLOCKS)
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(tied), prefix='backbone.')
    if model.startswith('tbc'):
        cfg.model.backbone.conv_cfg = tied_conv_cfg(NUM_BLOCKS)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
    return cfg


def train(run: Run, root: Path, work_root: Path) -> None:
    """Train one run."""
    training.train_detector(run, make_config(run, root, work_root), root, work_root)


def compared_pairs(sides: dict[str, list[Run]]) -> dict[str, dict[str, list[Run]]]:
    """Return both sides of each pair with runs, by the warm start's name, the baseline first."""
    return {warm: {cold: sides[cold], warm: sides[warm]} for warm, cold in PAIRS.items() if {warm, cold} <= set(sides)}


def warm_start_section(preset: str, sides: dict[str, list[Run]], comparison: dict) -> str:
    """Return the section of docs/evidence.md.

    Args:
        preset: Name of the settings.
        sides: The finished runs of each model.
        comparison: The result of `analysis.compare_models` for each pair of `compared_pairs`.
    """
    steps = next(iter(sides.values()))[0].read_summary()['steps']
    return f"""\
## A warm start without ImageNet

The ResNet-50 of seed 0 above is the teacher. TiedResNet-50-S imitates the feature maps of its stages, either alone for as many
steps before the detector's training, or during the first half of it ([distillation](distill.md)). A ResNet-50
with all of its convolutions tied by {NUM_BLOCKS} starts from the tied weights nearest to the teacher's
([tie](tie.md)). Each is compared with the same student from random weights, on the same images in the same order, with
{describe_seeds(sides)}.

{verdict(steps, comparison)}

![Box AP over the steps of training, from random weights and from the teacher](images/evidence_warm_start.png)

{values_table(sides)}

Differences in points, warm minus random, after {steps} steps:

{differences_table(comparison)}

{tied_only_table(preset)}
A warm start also costs the teacher's training, which took as many steps on the same images. The student distilled before its
training sees the images for twice as many steps in all, which may explain part of its lead; its processor minutes below exclude
the distillation. The student distilled during training pursues two objectives in half of its steps, and its teacher, with a box
AP of {100 * last_ap(teacher(preset)):.1f} %, is itself only {steps} steps old. We did not test which of these keeps it
from being ahead, nor what a teacher from ImageNet would add.
"""


def verdict(steps: int, comparison: dict) -> str:
    """Describe whether each warm start is ahead."""
    lines = ['**Is a warm start ahead at equal steps?**', '']
    for warm, found in comparison.items():
        row = found['bbox']['all']['AP'][warm]
        result = 'ahead' if row['low'] > 0 else 'behind' if row['high'] < 0 else 'neither ahead nor behind by more than chance'
        student, start = TITLES[warm]
        lines.append(f'- {student}, {start}: {result} after {steps} steps, {signed(row)} points of box AP.')
    return '\n'.join(lines)


def course(run: Run) -> dict[int, float]:
    """Return the box AP of a run by step of evaluation."""
    summary = run.read_summary()
    found = {step: metrics['coco/bbox_mAP'] for step, metrics in summary['validations']}
    return {**found, summary['steps']: last_ap(run)}


def last_ap(run: Run) -> float:
    """Return the final box AP of a run."""
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
    return markdown_table(['student', 'start', '', *band_words(QUESTION).values()], rows)


def tied_only_table(preset: str) -> str:
    """Return the table of the teacher with nearest tied weights and no further training; empty without results."""
    found = tie_only.read_results(preset)
    if not found:
        return ''
    rows = [['none', '0', '', '', f'{100 * last_ap(teacher(preset)):.1f}']]
    rows += [['no limit' if row['budget'] is None else f'{row["budget"]:g}', row['layers'], f'{row["weights"] / 1e6:.2f}M',
              f'{row["tied_weights"] / 1e6:.2f}M', f'{100 * row["AP"]:.1f}'] for row in found]
    table = markdown_table(['error up to', 'layers tied', 'their weights', 'tied weights', 'box AP in %'], rows)
    return f"""\
The teacher's AP with layers replaced by the nearest tied ones, without further training. The layers that save most come first,
while the root mean square of all layers' relative errors stays below a limit; the last row ties all but the first layer:

{table}
"""


def draw_courses(sides: dict[str, list[Run]]):
    """Plot box AP over the steps for every seed, and the mean of each model."""
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
