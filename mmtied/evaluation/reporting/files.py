"""Write the files of an evaluation or a comparison into a folder."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...atomic import atomic_files, save_text
from ...compat import require
from ...tables import write_csv
from ..comparison import compared_statistics, comparison_rows, without_empty_differences
from ..records import run_id, write_records
from ..summary import all_evaluations, report_rows, reported_iou_types, without_empty_buckets
from .categories import category_rows
from .runs import Run
from .tables import comparison_latex

if TYPE_CHECKING:
    from ..result import EvaluationResult
    from .pictures import WorstImages


#: Files of an earlier evaluation that a new one replaces.
_OUTPUTS = r'(records\.npz|report\.html|buckets\.(csv|tex)|categories(_\d+)?\.csv|ap_over_r_(bbox|segm)\.(png|pdf|svg))'


def write_outputs(result: 'EvaluationResult', folder: str | os.PathLike, examples: 'WorstImages | None' = None,
                  format: str = 'png', hide_empty: bool = False) -> list[Path]:
    """Write the files of an evaluation, all or none, replacing those of an earlier one; return their paths.

    The files are records.npz, ap_over_r_<iou type>.<format>, report.html, buckets.tex, buckets.csv, categories.csv and
    report.json. A killed process leaves the old report, the new one, or none, and never mixes files of two runs beside a report:
    report.json, records.npz and buckets.csv contain the run's id, which readers compare. `hide_empty` omits buckets without
    instances from the plots, the page and the LaTeX table.
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
    """Write buckets.csv and then report.json into a folder, each atomically; return their paths, the report's first."""
    text = _json(report)
    rows = [{**row, 'run': report.get('run', '')} for row in report_rows(report)]
    table = write_csv(Path(folder) / 'buckets.csv', rows[0], rows)
    return [save_text(Path(folder) / 'report.json', text), table]


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
