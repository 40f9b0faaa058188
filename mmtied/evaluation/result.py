"""Results of `evaluate` and `compare`: tables, plots, files.

Plots and files need matplotlib and jinja2, which are imported on demand.
"""

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plotting import check_format
from ..tables import text_table
from .accumulate import Positives, Records
from .buckets import EvaluationPlan
from .comparison import compared_statistics, comparison_rows, without_empty_differences
from .inputs.ground_truth import GroundTruth
from .inputs.results import Detections
from .intervals import Bootstrap, add_intervals
from .null_band import add_null_bands
from .occlusion import get_occlusion_ratio
from .records import SavedGroups, SavedRun, fingerprint, mask_fingerprint
from .summary import all_evaluations, report_rows, reported_iou_types, summarize, without_empty_buckets
from .targets import Targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .reporting.tables import PlainTable


class _Result:
    """A report as text, as HTML for notebooks and as a data frame; subclasses provide `rows` and `_tables`."""

    def table(self) -> Any:
        """Return `rows` as a pandas DataFrame if pandas is installed, otherwise as a list."""
        try:
            import pandas
        except ImportError:
            return self.rows()
        return pandas.DataFrame(self.rows())

    def __repr__(self) -> str:
        return '\n\n'.join(text_table(*table) for table in self._tables())

    def _repr_html_(self) -> str:
        """Return the tables as HTML, with names from data escaped."""
        def line(cells: Sequence[str], tag: str) -> str:
            return '<tr>' + ''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells) + '</tr>'

        return '\n'.join(f'<table><caption>{html.escape(title)}</caption>{line(header, "th")}'
                         f'{"".join(line(row, "td") for row in rows)}</table>' for title, header, rows in self._tables())


@dataclass(frozen=True, repr=False, eq=False)
class EvaluationResult(_Result):
    """One evaluated run.

    Args:
        report: The statistics of all images and of every bucket, see `summary.summarize`.
        records: Match records by IoU type, in the order of `join_records`.
        targets: The ground truth that the records were matched with.
        plan: The evaluations of the report and their groups.
        ground_truth: The annotations.
        categories: Positions of the evaluated categories, see `GroundTruth.select_categories`.
        proposal_nums: Limits of detections, see `Statistic.limit`.
        name: The detector's name on plots and pages.
        detections: The detections by IoU type, or those to draw; None if only their records were kept.
    """

    report: dict
    records: Mapping[str, Records]
    targets: Targets
    plan: EvaluationPlan
    ground_truth: GroundTruth
    categories: np.ndarray
    proposal_nums: tuple[int, ...]
    name: str = 'detector'
    detections: Mapping[str, Detections] | None = None

    def with_intervals(self, bootstrap: Bootstrap | None = None) -> 'EvaluationResult':
        """Return a copy with intervals and null bands in the report, see `add_intervals` and `add_null_bands`."""
        bootstrap, positives = bootstrap or Bootstrap(), self.targets.positives()
        options = (self.targets.num_categories, bootstrap, self.proposal_nums)
        report = add_intervals(self.report, self.records, positives, self.plan.groupings, *options)
        if bootstrap.null_sets:
            report = add_null_bands(report, self.records, positives, self.plan, *options)
        return replace(self, report=report)

    def saved_run(self) -> SavedRun:
        """Return the content of ``records.npz`` on the CPU, for comparing runs."""
        ground_truth, evaluations = self.ground_truth, []
        for part, groups in zip(all_evaluations(self.report), self.plan.groupings, strict=True):
            description = {key: part[key] for key in ('definition', 'unit', 'cumulative')}
            description['buckets'] = [{key: row[key] for key in ('name', 'lower', 'upper')}
                                      for row in part[next(iter(self.records))]['buckets']]
            evaluations.append(SavedGroups(description, *groups.to('cpu')))
        has_masks = 'segm' in self.records or any(get_occlusion_ratio(evaluation.definition).needs_masks
                                                  for evaluation in self.plan.evaluations)
        return SavedRun(source=ground_truth.source,
                        records={name: Records(*(column.cpu() for column in table)) for name, table in self.records.items()},
                        positives=Positives(*(column.cpu() for column in self.targets.positives())),
                        image_ids=ground_truth.image_ids,
                        category_names=tuple(map(str, ground_truth.names_of(self.categories))),
                        evaluations=tuple(evaluations),
                        proposal_nums=self.proposal_nums,
                        fingerprint=fingerprint(ground_truth),
                        name=self.report.get('name', ''),
                        run=self.report.get('run', ''),
                        mask_fingerprint=mask_fingerprint(ground_truth) if has_masks else '')

    def rows(self) -> list[dict]:
        """Return one row for all images and one per bucket, for every evaluation and IoU type, as in ``buckets.csv``."""
        return report_rows(self.report)

    def category_rows(self) -> list[dict]:
        """Return the AP of each category in every bucket, largest drop with occlusion first, as in ``categories.csv``."""
        from .reporting.categories import category_rows

        return category_rows(self.report)

    def plot(self, iou_type: str | None = None, path: str | os.PathLike | None = None, hide_empty: bool = False) -> 'Figure':
        """Plot AP over the occlusion ratio.

        Args:
            iou_type: An IoU type of the result, by default the first.
            path: Also write the figure to this .png, .pdf or .svg file; the latter two keep text as text.
            hide_empty: Omit buckets without instances.

        Raises:
            ValueError: The result does not have that IoU type, or the file's suffix is not one of these.
        """
        from .reporting.plots import plot_ap_over_r

        return _written(plot_ap_over_r(self._shown(hide_empty), _chosen_iou_type(iou_type, self.report), self.name), path)

    def latex(self, hide_empty: bool = False) -> str:
        """Return the tables in percent as LaTeX with booktabs; `hide_empty` omits buckets without instances."""
        from .reporting.tables import latex_tables

        return latex_tables(self._tables(hide_empty))

    def save(self, folder: str | os.PathLike, images: str | os.PathLike | None = None, num_worst: int = 3, format: str = 'png',
             hide_empty: bool = False, choice: str = 'worst', seed: int = 0) -> list[Path]:
        """Write ``records.npz``, plots, ``report.html``, ``buckets.tex``, ``buckets.csv`` and ``report.json`` into a folder.

        The files contain intervals after ``evaluate(..., bootstrap=True)`` or `with_intervals`. Statistics are fractions in the
        CSV and JSON files, and percentages elsewhere.

        Args:
            folder: Output folder, created if missing.
            images: Image folder, to show some with found and missed objects, duplicates and unmatched detections.
            num_worst: Number of images to show per bucket.
            format: Format of the plots: ``'png'``, or ``'pdf'`` or ``'svg'``, which keep text as text.
            hide_empty: Omit buckets without instances from plots, page and LaTeX table.
            choice: Images to show from each bucket: ``'worst'``, ``'typical'`` or ``'random'``.
            seed: Seed of the random choice.

        Returns:
            The paths of the files.

        Raises:
            ValueError: `folder` is a file, the format or the choice is unknown, an image is not in `images`, or this result has
                no detections to draw.
        """
        from .reporting.files import write_outputs

        _check_folder(folder)
        check_format(format)
        examples = None if images is None else self._pictures(images, num_worst, choice, seed)
        return write_outputs(self, folder, examples, format, hide_empty)

    def _shown(self, hide_empty: bool) -> dict:
        return without_empty_buckets(self.report) if hide_empty else self.report

    def _pictures(self, images: str | os.PathLike, num_worst: int, choice: str, seed: int) -> Any:
        from .inputs.images import image_paths
        from .reporting.pictures import draw_worst

        if not self.detections:
            raise ValueError('images: this result has no detections to draw; evaluate again to draw pictures')
        return draw_worst(self, image_paths(self.ground_truth, images), num_worst, choice, seed)

    def _tables(self, hide_empty: bool = False) -> Iterator['PlainTable']:
        from .reporting.tables import report_tables

        for table in report_tables(self._shown(hide_empty)):
            yield table._replace(title=f'{self.name}, {table.title}')


@dataclass(frozen=True, repr=False, eq=False)
class ComparisonResult(_Result):
    """Runs compared with the first one.

    Args:
        report: Values and differences with intervals, see `comparison.compare_runs`.
    """

    report: dict

    def rows(self) -> list[dict]:
        """Return one row per set of images, statistic and run except the first, as in ``comparison.csv``."""
        return list(comparison_rows(self.report))

    def plot(self, iou_type: str | None = None, statistic: str = 'AP', path: str | os.PathLike | None = None,
             hide_empty: bool = False) -> 'Figure':
        """Plot the paired differences and their intervals over the occlusion ratio.

        Args:
            iou_type: An IoU type of the runs, by default the first.
            statistic: AP, AP50, AP75 or another compared statistic.
            path: Also write the figure to this .png, .pdf or .svg file; the latter two keep text as text.
            hide_empty: Omit buckets where no run has a value.

        Raises:
            ValueError: The comparison does not have that IoU type or statistic, or the file's suffix is not one of these.
        """
        from .reporting.plots import plot_comparison

        self._check_statistics('plot', [statistic])
        iou_type = _chosen_iou_type(iou_type, self.report['evaluations'][0])
        return _written(plot_comparison(self._shown(hide_empty), iou_type, statistic), path)

    def latex(self, statistics: Sequence[str] | None = None, hide_empty: bool = False) -> str:
        """Return the tables in percent as LaTeX with booktabs.

        Args:
            statistics: Statistics to show, by default all compared ones.
            hide_empty: Omit buckets where no run has a value.
        """
        from .reporting.tables import comparison_latex

        self._check_statistics('latex', statistics)
        return comparison_latex(self._shown(hide_empty), statistics)

    def text(self, statistics: Sequence[str] | None = None, hide_empty: bool = False) -> str:
        """Return the tables in percent as plain text, with a line about the intervals; arguments as for `latex`."""
        from .reporting.tables import format_comparison

        self._check_statistics('text', statistics)
        return format_comparison(self._shown(hide_empty), statistics)

    def save(self, folder: str | os.PathLike, statistics: Sequence[str] | None = None, format: str = 'png',
             hide_empty: bool = False) -> list[Path]:
        """Write ``comparison.json``, ``comparison.csv``, ``comparison.tex`` and plots of the differences into a folder.

        Args:
            folder: Output folder, created if missing.
            statistics: Statistics in the LaTeX tables and plots, by default all compared ones.
            format: Format of the plots: ``'png'``, or ``'pdf'`` or ``'svg'``, which keep text as text.
            hide_empty: Omit buckets where no run has a value from plots and LaTeX tables.

        Returns:
            The paths of the files.

        Raises:
            ValueError: `folder` is a file, or the format or a statistic is unknown.
        """
        from .reporting.files import write_comparison

        _check_folder(folder)
        check_format(format)
        self._check_statistics('save', statistics)
        return write_comparison(self.report, folder, statistics, format, hide_empty)

    def __repr__(self) -> str:
        return self.text()

    def _shown(self, hide_empty: bool) -> dict:
        return without_empty_differences(self.report) if hide_empty else self.report

    def _check_statistics(self, where: str, statistics: Sequence[str] | None) -> None:
        known = compared_statistics(self.report)
        for statistic in statistics or ():
            if statistic not in known:
                raise ValueError(f'{where}: statistic {statistic!r} was not compared; use one of {", ".join(known)}')

    def _tables(self) -> Iterator['PlainTable']:
        from .reporting.tables import comparison_tables

        yield from comparison_tables(self.report)


def make_result(records: Mapping[str, Records], targets: Targets, plan: EvaluationPlan, ground_truth: GroundTruth,
                categories: np.ndarray, proposal_nums: Sequence[int], **more: Any) -> EvaluationResult:
    """Summarize match records; arguments as for `EvaluationResult`."""
    report = summarize(plan, records, targets, proposal_nums, ground_truth.names_of(categories),
                       ground_truth.frequencies_of(categories))
    return EvaluationResult(report, records, targets, plan, ground_truth, categories, tuple(proposal_nums), **more)


def _chosen_iou_type(iou_type: str | None, report: Mapping) -> str:
    known = reported_iou_types(report)
    if iou_type is not None and iou_type not in known:
        raise ValueError(f'plot: the result has no IoU type {iou_type!r}; use one of {", ".join(known)}')
    return iou_type or known[0]


def _written(figure: 'Figure', path: str | os.PathLike | None) -> 'Figure':
    from .reporting.plots import write_plot

    if path is not None:
        write_plot(figure, path)
    return figure


def _check_folder(folder: str | os.PathLike) -> None:
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ValueError(f'save: {folder} is a file; use a folder')
