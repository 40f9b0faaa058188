"""Write the files of an evaluation into a folder, and read reports back."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...atomic import atomic_path
from ...compat import require
from ..comparison import compared_statistics, comparison_rows, without_empty_differences
from ..inputs.coco_json import read_json
from ..records import name_runs, write_records
from ..summary import all_evaluations, report_rows, reported_iou_types, without_empty_buckets
from .categories import category_rows
from .tables import COUNTS, Run, comparison_latex

if TYPE_CHECKING:
    from ..result import EvaluationResult
    from .pictures import WorstImages


def write_outputs(result: 'EvaluationResult', folder: str | os.PathLike, examples: 'WorstImages | None' = None,
                  format: str = 'png', hide_empty: bool = False) -> Iterator[Path]:
    """Write the files of an evaluation, each completely or not at all.

    They are records.npz, ap_over_r_<iou type>.<format>, report.html, buckets.tex, buckets.csv and report.json. report.json comes
    last, so a failed write never leaves a new report with old files.

    Args:
        result: The evaluated run.
        folder: Where to write.
        examples: Images where it did worst, for the page.
        format: Format of the plots: png, pdf or svg.
        hide_empty: Leave buckets without instances out of plots, page and LaTeX table; the other files have all.

    Yields:
        Each path when it is written.
    """
    require(['matplotlib', 'jinja2'], 'The report')
    from .page import write_page
    from .plots import write_plots

    shown = without_empty_buckets(result.report) if hide_empty else result.report
    yield write_records(result.saved_run(), folder)
    yield from write_plots(shown, folder, result.name, format).values()
    yield write_page(Path(folder) / 'report.html', [Run(result.name, shown)], examples)
    yield _write_text(Path(folder) / 'buckets.tex', result.latex(hide_empty))
    for number, evaluation in enumerate(all_evaluations(result.report)):
        rows = category_rows({**evaluation, 'further': []})
        if rows:
            path = Path(folder) / ('categories.csv' if number == 0 else f'categories_{number}.csv')
            _write_csv(path, rows[0], rows)
            yield path
    yield from write_report(result.report, folder)


def write_report(report: dict, folder: str | os.PathLike) -> list[Path]:
    """Write report.json and, before it, buckets.csv into a folder, each completely or not at all; return their paths."""
    paths = [Path(folder) / 'report.json', Path(folder) / 'buckets.csv']
    text = _json(report)
    rows = report_rows(report)
    _write_csv(paths[1], rows[0], rows)
    _write_text(paths[0], text)
    return paths


def read_report(path: str | os.PathLike) -> dict:
    """Read a report.json; also one written before intervals, controls and extra evaluations existed.

    Raises:
        ValueError: The file is missing, truncated, or not such a report.
    """
    report = read_json(path)
    if not _is_report(report) or not all(map(_is_report, report.get('further', []))):
        raise ValueError(f"{path}: not an occlusion report, which has 'definition' and 'all' and 'buckets' for bbox or segm")
    return report


def read_runs(paths: Sequence[str | os.PathLike], names: Sequence[str] | None = None) -> list[Run]:
    """Read the reports of several runs.

    Args:
        paths: Folders that hold a report.json, or such files.
        names: A name for each, by default the one that the run was given, or that of its folder.

    Raises:
        ValueError: No path is given, a report cannot be read, or the names are too few or not distinct.
    """
    if not paths:
        raise ValueError('no folder with a report.json is given')
    files = [Path(path) / 'report.json' if Path(path).is_dir() else Path(path) for path in paths]
    reports = [read_report(file) for file in files] if names is None else []
    names = name_runs(files, [report.get('name', '') for report in reports]) if names is None else list(names)
    if len(names) != len(files):
        raise ValueError(f'{len(files)} runs need {len(files)} names, got {len(names)}: {", ".join(names)}')
    if len(set(names)) != len(names):
        raise ValueError(f'the runs need distinct names, got {", ".join(names)}')
    return [Run(name, report) for name, report in zip(names, reports or map(read_report, files), strict=True)]


def write_comparison(comparison: dict, folder: str | os.PathLike, statistics: Sequence[str] | None = None, format: str = 'png',
                     hide_empty: bool = False) -> list[Path]:
    """Write the files of a comparison, each completely or not at all; return their paths.

    They are comparison.json, comparison.csv, comparison.tex and difference_over_r_<iou type>_<statistic>.<format>.

    Args:
        comparison: From `comparison.compare_runs`.
        folder: Where to write.
        statistics: Statistics in the LaTeX tables and plots, by default all that were compared.
        format: Format of the plots: png, pdf or svg.
        hide_empty: Leave buckets without a value out of plots and LaTeX tables.
    """
    from .plots import plot_comparison, write_figure

    paths = [Path(folder) / 'comparison.json', Path(folder) / 'comparison.csv', Path(folder) / 'comparison.tex']
    shown, rows = without_empty_differences(comparison) if hide_empty else comparison, list(comparison_rows(comparison))
    _write_text(paths[0], _json(comparison))
    _write_csv(paths[1], rows[0], rows)
    _write_text(paths[2], comparison_latex(shown, statistics))
    for iou_type in reported_iou_types(comparison['evaluations'][0]):
        for statistic in statistics or compared_statistics(comparison):
            figure = plot_comparison(shown, iou_type, statistic)
            paths.append(write_figure(figure, folder, f'difference_over_r_{iou_type}_{statistic}', format))
    return paths


def _write_text(path: Path, text: str) -> Path:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding='utf-8')
    return path


def _json(value: dict) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + '\n'


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Mapping]) -> None:
    with atomic_path(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        table = csv.DictWriter(file, header)
        table.writeheader()
        table.writerows(rows)


def _is_report(report: object) -> bool:
    """Return True for what has the layout of a report."""
    if not isinstance(report, dict) or not isinstance(report.get('definition'), str) or not reported_iou_types(report):
        return False
    return isinstance(report.get('further', []), list) and all(_is_table(report[name]) for name in reported_iou_types(report))


def _is_table(table: object) -> bool:
    """Return True for a row of all images and one of each bucket; AP is the one statistic that every report has."""
    if not isinstance(table, dict) or set(table) != {'all', 'buckets'} or not isinstance(table['buckets'], list):
        return False
    rows = [table['all'], *table['buckets']]
    return (all(isinstance(row, dict) and {*COUNTS, 'AP'} <= set(row) for row in rows)
            and all({'name', 'lower', 'upper'} <= set(row) for row in table['buckets']))
