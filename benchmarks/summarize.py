"""Write the tables and plots of docs/benchmarks.md from the CSV files in docs/benchmarks/.

Each table is between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; the text around it is written by hand. In place of a
missing file, the page shows the command that measures it. A test checks that the page is up to date.

    python benchmarks/summarize.py
"""

import re
import statistics
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

from reporting import RUNS, markdown_table, read_csv

from mmtied.atomic import atomic_path

DOCS = Path(__file__).resolve().parents[1] / 'docs'
Rows = list[dict[str, str]]
STEPS = ('forward', 'forward + backward')
COLORS = ('#1f7a8c', '#8ecae6', '#e07a5f', '#f2cc8f')


def main() -> None:
    """Rewrite the page and the plots."""
    page = DOCS / 'benchmarks.md'
    text = summarize(page.read_text(encoding='utf-8'), DOCS / 'benchmarks')
    with atomic_path(page) as partial:
        partial.write_text(text, encoding='utf-8')
    for name, draw in PLOTS.items():
        if rows := read_csv(DOCS / 'benchmarks' / f'{name}.csv'):
            draw(rows, DOCS / 'images' / f'{name}.png')


def summarize(page: str, folder: Path) -> str:
    """Replace every table of the page.

    Args:
        page: Markdown with the markers.
        folder: Folder of the CSV files.

    Raises:
        ValueError: A section without a table, or a table without a section.
    """
    found = re.findall(r'<!-- begin (\w+) -->', page)
    if sorted(found) != sorted(TABLES):
        raise ValueError(f'docs/benchmarks.md: sections {found}; expected {list(TABLES)}')
    runs = {run['file']: run for run in read_csv(folder / RUNS)}
    for name, (table, command) in TABLES.items():
        rows = read_csv(folder / f'{name}.csv')
        text = f'Not measured yet: `python benchmarks/{command} --csv docs/benchmarks/{name}.csv`.'
        if rows:
            run = runs.get(f'{name}.csv', {})
            text = f'{run.get("title", "")} [All numbers]({folder.name}/{name}.csv).\n\n{table(rows)}\n\n'
            text += f'{run.get("machine", "").partition(",")[0]}. {run.get("note", "")}'.strip()
            if name in PLOTS:
                text += f'\n\n![{PLOT_TEXTS[name]}](images/{name}.png)'
        section = f'<!-- begin {name} -->\n\n{text.strip()}\n\n<!-- end {name} -->'
        page = re.sub(f'<!-- begin {name} -->.*?<!-- end {name} -->', lambda _: section, page, flags=re.DOTALL)  # noqa: B023
    return page


def pivot(rows: Rows, index: str, column: Callable[[dict[str, str]], str], value: str) -> str:
    """Format rows as a Markdown table with one line per value of `index` and one column per result of `column`."""
    columns = list(dict.fromkeys(column(row) for row in rows))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        lines.setdefault(row[index], {})[column(row)] = row[value]
    return markdown_table([index, *columns], [[key, *(cells.get(name, '-') for name in columns)] for key, cells in lines.items()])


def evaluation(rows: Rows) -> str:
    """Tabulate the seconds of each tool by IoU type and source."""
    return pivot(rows, 'tool', lambda row: f'{row["IoU type"]}, {row["source"]}', 'seconds')


def whole(rows: Rows) -> str:
    """Tabulate all columns."""
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])


def scale(rows: Rows) -> str:
    """Tabulate CPU seconds and peak memory by the number of detections, and describe their growth."""
    columns = ('data', 'images', 'detections', 'IoU type', 'replicates', 'file MB', 'CPU seconds', 'peak GB')
    of_kind: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        if row['CPU seconds']:
            of_kind.setdefault((row['data'], row['IoU type'], row['replicates']), []).append(row)
    growth = []
    for (data, iou_type, replicates), (first, *_, last) in ((kind, of) for kind, of in of_kind.items() if len(of) > 1):
        times = [float(last[column]) / float(first[column]) for column in ('detections', 'CPU seconds', 'peak GB')]
        growth.append('- {}, {}, {} replicates: {:.3g} times the detections take {:.2g} times the CPU seconds and {:.2g} times '
                      'the memory.'.format(data, iou_type, replicates, *times))
    table = markdown_table(columns, [[row[column] for column in columns] for row in rows])
    return '\n\n'.join([table, '\n'.join(growth)]).strip()


def val_loop(rows: Rows) -> str:
    """Tabulate the seconds of each metric."""
    columns = ('metric', 'process, s', 'compute, s', 'seconds', 'times mmtied')
    return markdown_table(columns, [[row[column] for column in columns] for row in rows])


def backbones(rows: Rows) -> str:
    """Tabulate the speed of each tied network relative to its baseline, and its training memory in the first format."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        if row['network'] != row['baseline']:
            cells = lines.setdefault(row['network'], dict(network=row['network'], baseline=row['baseline']))
            cells[f'{row["step"]}, {row["format"]}'] = row['times same form']
            if row['step'] == 'training':
                cells.setdefault('training memory', row['peak, same form'])
    order = ('network', 'baseline', 'inference', 'training', 'training memory')
    names = {name for cells in lines.values() for name in cells}
    columns = sorted(names, key=lambda name: (order.index(name.partition(',')[0]), name))
    return markdown_table(columns, [[cells.get(name, '-') for name in columns] for cells in lines.values()])


def compiled(rows: Rows) -> str:
    """Tabulate the inference speed of each form, relative to the baseline in the same form and as it is."""
    return markdown_table(
        ['network', 'form', 'format', 'images/s', 'times baseline, same form', 'times baseline as it is'],
        [[row['network'], row['form'], row['format'], row['images/s'], row['times same form'], row['times as it is']]
         for row in rows if row['step'] == 'inference'])


def memory(rows: Rows) -> str:
    """Tabulate training memory and speed by `with_cp`."""
    rows = [row for row in rows if row['step'] == 'training']
    plain = {(row['network'], row['format']): float(row['peak MiB']) for row in rows if row['form'] == 'plain'}
    lines = []
    for row in rows:
        with_cp = 'False' if row['form'] == 'plain' else row['form'].removeprefix('with_cp=')
        share = float(row['peak MiB']) / plain[row['baseline'], row['format']]
        lines.append([row['network'], with_cp, row['format'], row['peak MiB'], f'{share:.2f}', row['images/s']])
    return markdown_table(['network', 'with_cp', 'format', 'peak MiB', "of the plain baseline's", 'images/s'], lines)


def detectors(rows: Rows) -> str:
    """Tabulate the seconds of Mask R-CNN's steps."""
    columns = ('backbone', 'step', 'step, s', 'step, times baseline', 'backbone alone, times baseline', "backbone's share")
    return markdown_table(columns, [[row[column] for column in columns] for row in rows])


def figure3(rows: Rows) -> str:
    """Tabulate TBC's time relative to the other layers, as medians over B > 1."""
    others = ('untied grouped', 'fold', 'standard')
    lines = []
    for key in dict.fromkeys((row['kernel'], row['format'], row['step']) for row in rows):
        of = [row for row in rows if (row['kernel'], row['format'], row['step']) == key and row['B'] != '1']
        ratios = [median(float(row['TBC, ms']) / float(row[f'{name}, ms']) for row in of) for name in others]
        lines.append([f'{key[0]}x{key[0]}', *key[1:], *ratios])
    return markdown_table(['kernel', 'format', 'step', *(f'times {name}' for name in others)], lines)


def network_layers(rows: Rows) -> str:
    """Tabulate the milliseconds of all tied layers of a network, forward and backward, by algorithm."""
    columns = [name for name in rows[0] if name.endswith(', ms')]
    return markdown_table(['network and input', 'kernel (layers)', 'format', *columns], [
        [row['network'], f'{row["kernel"]} ({row["layers"]})', row['format'], *(
            f'{float(row[column]):.0f}' if row[column] else '-' for column in columns)]
        for row in rows if row['step'] == STEPS[1]])


def related_layers(rows: Rows) -> str:
    """Tabulate the time relative to the plain composition, forward and backward: medians over a network's stages."""
    both = [row for row in rows if row['step'] == STEPS[1]]
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in both:
        groups.setdefault((row['layer'], row['dtype'], row['format']), []).append(float(row['times plain']))
    return pivot([dict(layer=layer, setting=f'{dtype}, {layout}', ratio=median(values))
                  for (layer, dtype, layout), values in groups.items()], 'layer', lambda row: row['setting'], 'ratio')


def median(values: Iterable[float]) -> str:
    """Format the median with two digits."""
    return f'{statistics.median(values):.2f}'


def draw_figure3(rows: Rows, path: Path) -> None:
    """Plot milliseconds over B, one panel per kernel, format and pass."""
    plt = _pyplot()
    panels = list(dict.fromkeys((row['kernel'], row['format'], row['step']) for row in rows))
    kernels = list(dict.fromkeys(panel[0] for panel in panels))
    columns = list(dict.fromkeys(panel[1:] for panel in panels))
    figure, grid = plt.subplots(len(kernels), len(columns), figsize=(3.1 * len(columns), 2.6 * len(kernels)), squeeze=False,
                                sharex=True, layout='constrained')
    for panel in panels:
        of = [row for row in rows if (row['kernel'], row['format'], row['step']) == panel]
        axes = grid[kernels.index(panel[0]), columns.index(panel[1:])]
        blocks = [int(row['B']) for row in of]
        colors = {'TBC': COLORS[0], 'fold': COLORS[2], 'untied grouped': '#6d597a', 'standard': '#8d99ae'}
        for name, color in colors.items():
            axes.plot(blocks, [float(row[f'{name}, ms']) for row in of], marker='o', markersize=3, linewidth=1.4, color=color,
                      label=name)
        axes.set_title(f'{panel[0]}×{panel[0]}, {panel[1]}\n{panel[2]}', fontsize=8)
        axes.set_xscale('log', base=2)
        axes.set_xticks(blocks, [str(number) for number in blocks])
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
    for axes in grid[-1]:
        axes.set_xlabel('B', fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel('ms', fontsize=8)
    grid[0, 0].legend(fontsize=7, frameon=False)
    _save(figure, path)


def draw_backbones(rows: Rows, path: Path) -> None:
    """Plot the speed of each tied network relative to its baseline; thin lines span all turns."""
    plt = _pyplot()
    ours = [row for row in rows if row['network'] != row['baseline']]
    networks = list(dict.fromkeys(row['network'] for row in ours))
    series = list(dict.fromkeys((row['step'], row['format']) for row in ours))
    width = .8 / len(series)
    figure, axes = plt.subplots(figsize=(max(5., 1.1 * len(networks) + 1), 3.4), layout='constrained')
    for number, (key, color) in enumerate(zip(series, COLORS, strict=False)):
        of = [row for row in ours if (row['step'], row['format']) == key]
        medians, lowest, highest = ([float(row[f'{what}, same form' if what != 'times' else 'times same form']) for row in of]
                                    for what in ('times', 'lowest', 'highest'))
        axes.bar([networks.index(row['network']) + (number - (len(series) - 1) / 2) * width for row in of], medians, width,
                 yerr=[[m - low for m, low in zip(medians, lowest, strict=True)],
                       [high - m for m, high in zip(medians, highest, strict=True)]],
                 label=', '.join(key), color=color, error_kw=dict(linewidth=.8, ecolor='#4a4e69'))
    axes.axhline(1, color='#22223b', linewidth=1)
    axes.set_xticks(range(len(networks)), networks, rotation=25, ha='right', fontsize=8)
    axes.set_ylabel("times the baseline's images/s", fontsize=8)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc='lower center', bbox_to_anchor=(.5, 1))
    _save(figure, path)


def _pyplot() -> object:
    import matplotlib
    matplotlib.use('agg')
    import matplotlib.pyplot as plt
    return plt


def _save(figure: object, path: Path) -> None:
    """Write a PNG of 64 colors, a third of the size of a full-color one."""
    from PIL import Image
    buffer = BytesIO()
    figure.savefig(buffer, dpi=90)
    with atomic_path(path) as temporary:
        Image.open(buffer).convert('RGB').quantize(64).save(temporary, format='PNG', optimize=True)


def coverage(rows: Rows) -> str:
    """Tabulate the lowest, mean and highest coverage of 95 % intervals, of single runs and of paired differences."""
    def cell(images: str, paired: bool) -> str:
        found = [100 * float(row['coverage']) for row in rows if row['images'] == images and (' - ' in row['detector']) == paired]
        return f'{min(found):.1f} / {statistics.mean(found):.1f} / {max(found):.1f}'

    sizes = sorted({row['images'] for row in rows}, key=int)
    return markdown_table(['images', 'single runs, %', 'paired differences, %'],
                          [[size, cell(size, paired=False), cell(size, paired=True)] for size in sizes])


def candidates(rows: Rows) -> str:
    """Tabulate the coverage of 95 % intervals of AP by method and number of images."""
    sizes, methods = _candidates(rows)
    return markdown_table(['method', *(f'{size} images, %' for size in sizes)], [
        [method, *(f'{values[size]:.1f}' for size in sizes)] for method, values in methods.items()])


def draw_candidates(rows: Rows, path: Path) -> None:
    """Plot the coverage over the number of images, with the nominal coverage in gray."""
    plt = _pyplot()
    sizes, methods = _candidates(rows)
    figure, axes = plt.subplots(figsize=(7.2, 4), layout='constrained')
    axes.axhspan(93, 97, color='.88')
    for number, (method, values) in enumerate(methods.items()):
        used = method == 'halves and quarters'
        axes.plot(range(len(sizes)), [values[size] for size in sizes], marker='os^DvPX*<>hp'[number], markersize=8 if used else 6,
                  linewidth=2.6 if used else 1.4, label=f'{method}{" (used)" if used else ""}', zorder=3 if used else 2,
                  color='black' if used else f'C{number % 10}')
    axes.set_xticks(range(len(sizes)), sizes)
    axes.set_xlabel('images of a data set')
    axes.set_ylabel('95 % intervals that hold\nthe expected AP, %')
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, .5))
    _save(figure, path)


def _candidates(rows: Rows) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Return the numbers of images, and the coverage of AP in percent for each method and number."""
    methods: dict[str, dict[str, float]] = {}
    for row in rows:
        if row['statistic'] == 'AP':
            methods.setdefault(row['method'], {})[row['images']] = 100 * float(row['coverage'])
    return sorted({row['images'] for row in rows}, key=int), methods


#: Table and measuring command of each section; the section's name is the CSV file's.
TABLES: dict[str, tuple[Callable[[Rows], str], str]] = {
    'backbones_cpu': (backbones, 'backbones.py'),
    'compiled_cpu': (compiled, 'backbones.py --networks TiedResNet-50 TiedResNet-50-S --steps inference --deploy --compile'),
    'memory_cpu': (memory, 'backbones.py --networks TiedResNet-50 TiedResNet-50-S --steps training --with-cp'),
    'detectors_cpu': (detectors, 'detectors.py'),
    'evaluation_cpu': (evaluation, 'evaluation.py instances_val2017.json --replicates 1000'),
    'val_loop_cpu': (val_loop, 'evaluation.py instances_val2017.json --val-images 100'),
    'scale_cpu': (scale, 'scale.py instances_val2017.json'),
    'resume_drift': (whole, 'resume_drift.py --threads 1'),
    'coverage': (coverage, 'coverage.py instances_val2017.json'),
    'coverage_candidates': (candidates, "coverage.py instances_val2017.json --candidates --mixes 'all r'"),
    'figure3_cpu': (figure3, 'layers.py figure3'),
    'network_layers_cpu': (network_layers, 'layers.py networks'),
    'related_layers_cpu': (related_layers, 'related_layers.py --threads 1'),
}
PLOTS = {'figure3_cpu': draw_figure3, 'backbones_cpu': draw_backbones, 'coverage_candidates': draw_candidates}
PLOT_TEXTS = {
    'figure3_cpu': 'Milliseconds over B for tied and grouped convolutions at a fixed number of multiply-adds',
    'backbones_cpu': "Images per second of tied backbones as multiples of their baselines'",
    'coverage_candidates': 'Coverage of 95 % intervals of AP over the number of images, by method',
}

if __name__ == '__main__':
    main()
