"""The section of docs/evidence.md on classification."""

import statistics

from mmtied.tables import markdown_table

from . import classification
from .detectors_section import describe_seeds, spread
from .runs import Run

#: Names of the models for readers.
CLASSIFIERS = {'plain': 'plain, 16 wide', 'grouped': 'grouped by 2, 22 wide', 'tied': 'tied by 2, 22 wide',
               'igc': 'interleaved (IGC), 48 wide', 'shared': 'shared filter bases'}


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
    epochs = f'{settings.epochs} epoch' + ('s' if settings.epochs > 1 else '')
    return f"""\
## Classification, and how alike filters are

CIFAR-10 in {epochs} with batches of {settings.batch_size}, {describe_seeds(sides)}; all networks have 20 layers
and IGC's recipe with a cosine schedule. The plain, grouped and tied networks have widths of about equal multiply-adds.
Wang & Yu treat filters that respond alike as redundant (Figures 1 and 9), and report that tied filters are less alike.

{verdict_on_filters(summaries)}

{markdown_table(header, rows)}

Values are means over seeds, ± their standard deviation. *Cosine of weights*: mean absolute cosine of each two filters that see
the same channels. *By chance*: that of random filters, which is larger the fewer weights a filter has. *Cosine of patterns*:
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
    alike = {model: statistics.mean(run['patterns']['mean'] for run in runs) for model, runs in summaries.items()}
    accuracies = [statistics.mean(run['accuracy'] for run in summaries[model]) for model in ('tied', 'plain')]
    grouped = f' (the grouped network, which shares no filter: {alike["grouped"]:.2f})' if 'grouped' in alike else ''
    return (f'**Do tied filters correlate less?** They respond {order} those of the plain one: cosine '
            f'{alike["tied"]:.2f} against {alike["plain"]:.2f}{grouped}. The tied network classifies {accuracies[0]:.1f} % '
            f'of the test images correctly, the plain one {accuracies[1]:.1f} %.'
            + (' With one seed this is preliminary.' if min(len(tied), len(plain)) == 1 else ''))
