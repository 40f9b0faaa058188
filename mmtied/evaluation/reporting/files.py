"""Write the files of an evaluation into a folder, and read reports back."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...atomic import atomic_files, save_text
from ...compat import require
from ...tables import write_csv
from ..comparison import compare_runs, compared_statistics, comparison_rows, without_empty_differences
from ..inputs.coco_json import read_json
from ..records import FILE_NAME, check_one_run, name_runs, read_records, run_id, write_records
from ..summary import all_evaluations, report_rows, reported_iou_types, without_empty_buckets
from .categories import category_rows
from .seeds import add_seed_intervals, average_reports
from .tables import COUNTS, Run, comparison_latex

if TYPE_CHECKING:
    from ..result import EvaluationResult
    from .pictures import WorstImages


#: Files that an evaluation wrote, and another one replaces.
_OUTPUTS = r'(records\.npz|report\.html|buckets\.(csv|tex)|categories(_\d+)?\.csv|ap_over_r_(bbox|segm)\.(png|pdf|svg))'


def write_outputs(result: 'EvaluationResult', folder: str | os.PathLike, examples: 'WorstImages | None' = None,
                  format: str = 'png', hide_empty: bool = False) -> list[Path]:
    """Write the files of an evaluation, all or none, in place of those of another; return their paths.

    They are records.npz, ap_over_r_<iou type>.<format>, report.html, buckets.tex, buckets.csv, categories.csv and report.json.
    A process that is killed leaves the old report, the new one, or none, and never files of two runs beside a report; the id of
    the run is in report.json, records.npz and buckets.csv, and readers compare it. `hide_empty` leaves buckets without instances
    out of plots, page and LaTeX table.
    """
    require(['matplotlib', 'jinja2'], 'The report')
    from .page import write_page
    from .plots import plot_ap_over_r, write_plot

    saved = result.saved_run()
    saved = replace(saved, run=run_id(result.report, saved.records.values()))
    report = {**result.report, 'run': saved.run}
    shown = without_empty_buckets(report) if hide_empty else report
    with atomic_files(folder, 'report.json', _OUTPUTS) as temporary:
        write_records(saved, temporary)
        for iou_type in reported_iou_types(shown):
            write_plot(plot_ap_over_r(shown, iou_type, result.name), temporary / f'ap_over_r_{iou_type}.{format}')
        write_page(temporary / 'report.html', [Run(result.name, shown)], examples)
        save_text(temporary / 'buckets.tex', result.latex(hide_empty))
        for number, evaluation in enumerate(all_evaluations(report)):
            rows = category_rows({**evaluation, 'further': []})
            if rows:
                write_csv(temporary / ('categories.csv' if number == 0 else f'categories_{number}.csv'), rows[0], rows)
        write_report(report, temporary)
        names = sorted((file.name for file in temporary.iterdir()), key=lambda name: (name == 'report.json', name))
    return [Path(folder) / name for name in names]


def write_report(report: dict, folder: str | os.PathLike) -> list[Path]:
    """Write report.json and, before it, buckets.csv into a folder, each completely or not at all; return their paths."""
    text = _json(report)
    rows = [{**row, 'run': report.get('run', '')} for row in report_rows(report)]
    table = write_csv(Path(folder) / 'buckets.csv', rows[0], rows)
    return [save_text(Path(folder) / 'report.json', text), table]


def read_report(path: str | os.PathLike) -> dict:
    """Read a report.json; also one written before intervals, controls and extra evaluations existed.

    Raises:
        ValueError: The file is missing, truncated, or not such a report, or files beside it are of another run.
    """
    path = Path(path)
    if not path.exists() and (path.parent / FILE_NAME).exists():
        raise ValueError(f'{path}: no such file, and {FILE_NAME} is there: the evaluation was stopped while it wrote; run it '
                         'again')
    report = read_json(path)
    if not _is_report(report):
        raise ValueError(f"{path}: not an occlusion report, which has 'definition' and 'all' and 'buckets' for bbox or segm")
    if path.name == 'report.json':
        check_one_run(path, report.get('run', ''))
    return report


def read_runs(paths: Sequence[str | os.PathLike], names: Sequence[str] | None = None) -> list[Run]:
    """Read the reports of several runs, from folders that hold a report.json, or such files.

    Without `names`, a run has the name that it was given, or that of its folder.

    Raises:
        ValueError: No path is given, a report cannot be read, or the names are too few or not distinct.
    """
    if not paths:
        raise ValueError('no folder with a report.json is given')
    files = [Path(path) / 'report.json' if Path(path).is_dir() else Path(path) for path in paths]
    if names is not None and len(names) != len(files):
        raise ValueError(f'{len(files)} runs need {len(files)} names, got {len(names)}: {", ".join(names)}')
    reports = list(map(read_report, files))
    names = name_runs(files, [report.get('name', '') for report in reports]) if names is None else names
    if len(set(names)) != len(names):
        raise ValueError(f'the runs need distinct names, got {", ".join(names)}')
    return [Run(*run) for run in zip(names, reports, strict=True)]


def read_sides(sides: Sequence[Sequence[str | os.PathLike]], names: Sequence[str] | None = None) -> tuple[list[Run], dict | None]:
    """Read runs that are shown together, and compare them where all have their match records.

    Args:
        sides: For each curve a folder with a report.json (or such a file), or several of one recipe that differ in their seed,
            whose mean is shown.
        names: A name for each side; by default as for `read_runs`, and 'a', 'b' for means.

    Returns:
        The runs, and the comparison with the first, see `comparison.compare_runs`; None for one side or without all records.npz.

    Raises:
        ValueError: As `read_runs`, and runs that cannot be compared.
    """
    if names is None and any(len(side) > 1 for side in sides):
        names = [chr(ord('a') + number) for number in range(len(sides))]
    firsts = read_runs([side[0] for side in sides], names)
    runs = [first if len(side) == 1 else Run(first.name, average_reports([run.report for run in read_runs(side)]))
            for first, side in zip(firsts, sides, strict=True)]
    folders = [[Path(path) if Path(path).is_dir() else Path(path).parent for path in side] for side in sides]
    if len(sides) < 2 or not all((folder / FILE_NAME).is_file() for side in folders for folder in side):
        return runs, None
    comparison = compare_runs([list(map(read_records, side)) for side in folders], [run.name for run in runs])
    for number, (side, run) in enumerate(zip(sides, runs, strict=True)):
        if len(side) > 1:
            add_seed_intervals(run.report, comparison, number)
    return runs, comparison


def write_comparison(comparison: dict, folder: str | os.PathLike, statistics: Sequence[str] | None = None, format: str = 'png',
                     hide_empty: bool = False) -> list[Path]:
    """Write the files of a comparison, all or none; return their paths. Arguments as for `ComparisonResult.save`."""
    from .plots import plot_comparison, write_plot

    shown, rows = without_empty_differences(comparison) if hide_empty else comparison, list(comparison_rows(comparison))
    names = ['comparison.json', 'comparison.csv', 'comparison.tex']
    with atomic_files(folder, names[0], r'comparison\.(csv|tex)|difference_over_r_\w+\.(png|pdf|svg)') as temporary:
        save_text(temporary / names[0], _json(comparison))
        write_csv(temporary / names[1], rows[0], rows)
        save_text(temporary / names[2], comparison_latex(shown, statistics))
        for iou_type in reported_iou_types(comparison['evaluations'][0]):
            for statistic in statistics or compared_statistics(comparison):
                names.append(f'difference_over_r_{iou_type}_{statistic}.{format}')
                write_plot(plot_comparison(shown, iou_type, statistic), temporary / names[-1])
    return [Path(folder) / name for name in names]


def _json(value: dict) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + '\n'


def _is_report(report: Any) -> bool:
    """Return True for what has the layout of a report; AP is the one statistic that every report has."""
    try:
        parts = [report, *report.get('further', ())]
        tables = [part[iou_type] for part in parts for iou_type in reported_iou_types(part)]
        return (all(isinstance(part['definition'], str) and reported_iou_types(part) for part in parts)
                and all({*COUNTS, 'AP'} <= row.keys() for table in tables for row in (table['all'], *table['buckets']))
                and all({'name', 'lower', 'upper'} <= bucket.keys() for table in tables for bucket in table['buckets']))
    except (AttributeError, KeyError, TypeError):
        return False
