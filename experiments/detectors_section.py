"""Tables, text and figure of an experiment with detectors, from the comparison of its models."""

import statistics
from types import ModuleType

from mmtied.evaluation import compare, read_records
from mmtied.evaluation.intervals import MIN_IMAGES
from mmtied.tables import markdown_table

from .analysis import CHANGE, Question
from .runs import Run

#: Names of the models on the page.
TITLES = {'r50': 'ResNet-50', 'tied': 'TiedResNet-50', 'tied_s': 'TiedResNet-50-S', 'grouped': 'grouped twin',
          'r50_narrow': 'narrow ResNet-50'}
#: Additional baselines of the tied networks, which isolate the tying from the size.
CONTROLS = {'tied': 'grouped', 'tied_s': 'r50_narrow'}
#: Fewest seeds for a verdict that is not preliminary.
MANY_SEEDS = 3
MEASURES = ('AP', 'AP75', 'duplicates')
IOU_TYPES = {'bbox': 'boxes', 'segm': 'masks'}


class Detectors:
    """The models of an experiment with detectors, compared with the first.

    Args:
        experiment: Module of the experiment.
        sides: The finished runs of each model.
        comparison: The result of `analysis.compare_models`, with the comparisons to the `CONTROLS` under ``controls``.
    """

    def __init__(self, experiment: ModuleType, sides: dict[str, list[Run]], comparison: dict) -> None:
        self.question, self.sides, self.comparison = experiment.QUESTION, sides, comparison
        self.all, self.low, self.high = self.question.bands
        self.words = band_words(self.question)

    def tables(self) -> list[str]:
        """Return the tables of values and of differences, for each IoU type."""
        types = self.question.iou_types
        return [self.values_table(iou_type) for iou_type in types] + [self.differences_table(iou_type) for iou_type in types]

    def values_table(self, iou_type: str) -> str:
        """Return the table of values of one IoU type."""
        def cell(band: str, measure: str, model: str) -> str:
            return spread([100 * value for value in self.comparison[iou_type][band][measure][model]['seeds']])

        columns = [(measure, band) for measure in MEASURES for band in self.question.bands
                   if measure != 'AP75' or band != self.all]
        header = ['backbone', 'parameters', *(f'{measure}, {self.words[band]}' for measure, band in columns)]
        rows = [[TITLES[model], f'{side[0].read_summary()["backbone_parameters"] / 1e6:.2f}M',
                 *(cell(band, measure, model) for measure, band in columns)] for model, side in self.sides.items()]
        return f'In %, {IOU_TYPES[iou_type]}:\n\n{markdown_table(header, rows)}\n'

    def differences_table(self, iou_type: str) -> str:
        """Return the table of paired differences from the first model and the controls, for one IoU type."""
        pairs = [(model, 'r50', self.comparison) for model in list(self.sides)[1:]]
        pairs += [(model, CONTROLS[model], found) for model, found in self.comparison['controls'].items()]
        rows = [[TITLES[model], TITLES[baseline], measure,
                 *(signed(found[iou_type][band][measure][model]) for band in self.words)]
                for model, baseline, found in pairs for measure in MEASURES]
        header = ['backbone', 'minus', '', *self.words.values()]
        return f'Differences in points, {IOU_TYPES[iou_type]}:\n\n{markdown_table(header, rows)}\n'

    def verdict(self) -> str:
        """Answer the question of the experiment in words."""
        lines = [self.describe(model, 'r50', self.comparison) for model in ('tied', 'tied_s') if model in self.sides]
        lines += [self.describe(model, CONTROLS[model], found) for model, found in self.comparison['controls'].items()]
        fewest = min(len(side) for side in self.sides.values())
        if fewest < MANY_SEEDS:
            lines.append(f'\nFewer than {MANY_SEEDS} seeds may agree by chance, so this is preliminary.' + (
                ' For a model with one seed, the interval covers the choice of images but not the seed.'
                if fewest == 1 else ''))
        return '\n'.join([f'**Is there a gain at {self.words[self.high]}, and is it larger than at {self.words[self.low]}?**', '',
                          *lines, *self.describe_size()])

    def describe(self, model: str, baseline: str, comparison: dict) -> str:
        """Describe in one line how a model's box AP differs from another's at both ends of r."""
        low, high, change = (comparison['bbox'][band]['AP'][model] for band in (self.low, self.high, CHANGE))
        trend = ('rises with occlusion' if change['low'] > 0 else 'falls with occlusion' if change['high'] < 0
                 else 'does not change with occlusion by more than chance')
        effect = ('a gain' if high['low'] > 0 else 'a loss' if high['high'] < 0
                 else 'neither a gain nor a loss beyond chance')
        return (f'- {TITLES[model]} minus {TITLES[baseline]}, box AP: {signed(low)} at {self.words[self.low]}, {signed(high)} at '
                f'{self.words[self.high]}. The difference {trend} ({signed(change)}); at {self.words[self.high]} it is {effect}.')

    def describe_size(self) -> list[str]:
        """Describe whether a smaller network explains a difference from ResNet-50 that rises with occlusion, if any does."""
        if not {'tied_s', 'r50_narrow'} <= set(self.sides):
            return []
        tied, narrow = (self.comparison['bbox'][CHANGE]['AP'][model] for model in ('tied_s', 'r50_narrow'))
        between = self.comparison['controls']['tied_s']['bbox'][CHANGE]['AP']['tied_s']
        if tied['low'] <= 0 or narrow['low'] <= 0 or between['low'] > 0:
            return []
        return ['', f'The narrow ResNet-50 also falls behind ResNet-50 the least where r is large ({signed(narrow)}). So fewer '
                    'parameters suffice to explain this rise; any further effect of tying is not distinguishable from chance.']

    def draw_over_r(self):
        """Plot the mean AP of each model over r, and its paired difference from the first, for buckets with intervals."""
        from mmtied.plotting import hide_spines, new_figure
        sides, types = self.sides, self.question.iou_types
        comparison = compare(*([read_records(run.results) for run in side] for side in sides.values()),
                             names=[TITLES[model] for model in sides]).report['evaluations'][self.question.evaluation]
        figure = new_figure(5 * len(types), 6.4)
        panels = figure.subplots(2, len(types), sharex=True, sharey='row', height_ratios=[1.2, 1], squeeze=False)
        for column, iou_type in enumerate(types):
            buckets = [bucket for bucket in comparison[iou_type]['buckets'] if bucket['images'] >= MIN_IMAGES]
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
            top.set_title(f'{IOU_TYPES[iou_type]}, means of {describe_seeds(sides)}')
            bottom.set_xticks(range(len(buckets)), [bucket['name'] for bucket in buckets], rotation=45, ha='right', fontsize=8)
            bottom.set_xlabel('occlusion ratio r')
            hide_spines(top)
            hide_spines(bottom)
        panels[0, 0].set_ylabel('AP in %')
        panels[1, 0].set_ylabel('AP minus ResNet-50, points')
        panels[0, -1].legend(frameon=False, fontsize=9)
        return figure


def band_words(question: Question) -> dict[str, str]:
    """Return readable names of an experiment's bands, and of the change of a difference between the ends of r."""
    everything, *ends = question.bands
    return {everything: 'all images', **{band: band.replace('>=', '≥') for band in ends}, CHANGE: 'change of the difference'}


def describe_seeds(sides: dict[str, list[Run]]) -> str:
    """Describe the number of seeds per model."""
    fewest, *_, most = sorted(len(side) for side in [*sides.values(), *sides.values()])
    if fewest == most:
        return 'one seed each' if most == 1 else f'{most} seeds each'
    return f'{fewest} {"or" if most == fewest + 1 else "to"} {most} seeds each'


def signed(row: dict) -> str:
    """Format a difference and its interval in points of AP."""
    return f'{100 * row["difference"]:+.1f} [{100 * row["low"]:+.1f}, {100 * row["high"]:+.1f}]'


def spread(values: list[float], digits: int = 1) -> str:
    """Format the mean over seeds and their standard deviation."""
    deviation = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.{digits}f}{deviation}'
