"""Results of `evaluate` and `compare`: tables, plots, files.

Plots and files need matplotlib and jinja2, which are imported when they are asked for.
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
    """A report, of which a subclass gives `rows` and `_tables`, as text, as HTML for notebooks and as a data frame."""

    def table(self) -> Any:
        """Return `rows` as a pandas DataFrame where pandas is installed, else as they are."""
        try:
            import pandas
        except ImportError:
            return self.rows()
        return pandas.DataFrame(self.rows())

    def __repr__(self) -> str:
        return '\n\n'.join(text_table(*table) for table in self._tables())

    def _repr_html_(self) -> str:
        """Return the tables as HTML; names from data are text, never markup."""
        def line(cells: Sequence[str], tag: str) -> str:
            return '<tr>' + ''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells) + '</tr>'

        return '\n'.join(f'<table><caption>{html.escape(title)}</caption>{line(header, "th")}'
                         f'{"".join(line(row, "td") for row in rows)}</table>' for title, header, rows in self._tables())


@dataclass(frozen=True, repr=False, eq=False)
class EvaluationResult(_Result):
    """One evaluated run.

    Args:
        report: The statistics of all images and of every bucket, see `summary.summarize`.
        records: Match records by IoU type, sorted as `join_records` sorts.
        targets: The ground truth that they were matched with.
        plan: The evaluations of the report, and their groups.
        ground_truth: The annotations.
        categories: Positions of the evaluated categories, see `GroundTruth.select_categories`.
        proposal_nums: Limits of detections, see `Statistic.limit`.
        name: The detector's name on plots and pages.
        detections: The detections by IoU type, or those to draw, for pictures; None where only their records were kept.
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
        """Return the same with intervals and null bands in the report, see `add_intervals` and `add_null_bands`."""
        bootstrap, positives = bootstrap or Bootstrap(), self.targets.positives()
        options = (self.targets.num_categories, bootstrap, self.proposal_nums)
        report = add_intervals(self.report, self.records, positives, self.plan.groupings, *options)
        if bootstrap.null_sets:
            report = add_null_bands(report, self.records, positives, self.plan, *options)
        return replace(self, report=report)

    def saved_run(self) -> SavedRun:
        """Return what ``records.npz`` keeps, on the CPU, from which runs are compared."""
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
        """Return a row for all images and for each bucket of every evaluation and IoU type, as in ``buckets.csv``."""
        return report_rows(self.report)

    def category_rows(self) -> list[dict]:
        """Return AP of each category in every bucket, those that fall most with occlusion first, as in ``categories.csv``."""
        from .reporting.categories import category_rows

        return category_rows(self.report)

    def plot(self, iou_type: str | None = None, path: str | os.PathLike | None = None, hide_empty: bool = False) -> 'Figure':
        """Plot AP over the occlusion ratio.

        Args:
            iou_type: An IoU type of the result, by default the first.
            path: Also write the figure into this file: .png, or .pdf or .svg, where text stays text.
            hide_empty: Leave out buckets without instances.

        Raises:
            ValueError: The result does not have that IoU type, or the file's suffix is another.
        """
        from .reporting.plots import plot_ap_over_r

        return _written(plot_ap_over_r(self._shown(hide_empty), _chosen_iou_type(iou_type, self.report), self.name), path)

    def latex(self, hide_empty: bool = False) -> str:
        """Return the tables as LaTeX for the package booktabs, in percent; `hide_empty` leaves out buckets without instances."""
        from .reporting.tables import latex_tables

        return latex_tables(self._tables(hide_empty))

    def save(self, folder: str | os.PathLike, images: str | os.PathLike | None = None, num_worst: int = 3, format: str = 'png',
             hide_empty: bool = False, choice: str = 'worst', seed: int = 0) -> list[Path]:
        """Write ``records.npz``, plots, ``report.html``, ``buckets.tex``, ``buckets.csv`` and ``report.json`` into a folder.

        The files have intervals where `report` and `rows` have them: after ``evaluate(..., bootstrap=True)`` or
        `with_intervals`. Statistics are percent in what people read, and fractions in the CSV and JSON files.

        Args:
            folder: Where to write; made where it is missing.
            images: Folder of the images, to show some on the page with what was found, missed, found twice and invented.
            num_worst: How many images of each bucket to show.
            format: Format of the plots: ``'png'``, or ``'pdf'`` or ``'svg'``, where text stays text.
            hide_empty: Leave buckets without instances out of plots, page and LaTeX table.
            choice: Which images of each bucket: ``'worst'``, ``'typical'`` or ``'random'``.
            seed: Of the random choice.

        Returns:
            The paths of the files.

        Raises:
            ValueError: `folder` is a file, the format or the choice is unknown, an image is not in `images`, or the detections
                of this run are not known.
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
            raise ValueError('images: the detections of this result are not known; evaluate them again to draw pictures')
        return draw_worst(self, image_paths(self.ground_truth, images), num_worst, choice, seed)

    def _tables(self, hide_empty: bool = False) -> Iterator['PlainTable']:
        from .reporting.tables import report_tables

        for table in report_tables(self._shown(hide_empty)):
            yield table._replace(title=f'{self.name}, {table.title}')


@dataclass(frozen=True, repr=False, eq=False)
class ComparisonResult(_Result):
    """Runs compared with the first of them.

    Args:
        report: Values and differences with intervals, see `comparison.compare_runs`.
    """

    report: dict

    def rows(self) -> list[dict]:
        """Return a row for each set of images, statistic and run but the first, as in ``comparison.csv``."""
        return list(comparison_rows(self.report))

    def plot(self, iou_type: str | None = None, statistic: str = 'AP', path: str | os.PathLike | None = None,
             hide_empty: bool = False) -> 'Figure':
        """Plot the paired differences over the occlusion ratio with their intervals.

        Args:
            iou_type: An IoU type of the runs, by default the first.
            statistic: AP, AP50, AP75 or another that was compared.
            path: Also write the figure into this file: .png, or .pdf or .svg, where text stays text.
            hide_empty: Leave out buckets where no run has a value.

        Raises:
            ValueError: The comparison does not have that IoU type or statistic, or the file's suffix is another.
        """
        from .reporting.plots import plot_comparison

        self._check_statistics('plot', [statistic])
        iou_type = _chosen_iou_type(iou_type, self.report['evaluations'][0])
        return _written(plot_comparison(self._shown(hide_empty), iou_type, statistic), path)

    def latex(self, statistics: Sequence[str] | None = None, hide_empty: bool = False) -> str:
        """Return the tables as LaTeX for the package booktabs, in percent.

        Args:
            statistics: Those to show, by default all that were compared.
            hide_empty: Leave out buckets where no run has a value.
        """
        from .reporting.tables import comparison_latex

        self._check_statistics('latex', statistics)
        return comparison_latex(self._shown(hide_empty), statistics)

    def text(self, statistics: Sequence[str] | None = None, hide_empty: bool = False) -> str:
        """Return the tables as plain text, in percent, with a line on the intervals; arguments as for `latex`."""
        from .reporting.tables import format_comparison

        self._check_statistics('text', statistics)
        return format_comparison(self._shown(hide_empty), statistics)

    def save(self, folder: str | os.PathLike, statistics: Sequence[str] | None = None, format: str = 'png',
             hide_empty: bool = False) -> list[Path]:
        """Write ``comparison.json``, ``comparison.csv``, ``comparison.tex`` and plots of the differences into a folder.

        Args:
            folder: Where to write; made where it is missing.
            statistics: Statistics in the LaTeX tables and plots, by default all that were compared.
            format: Format of the plots: ``'png'``, or ``'pdf'`` or ``'svg'``, where text stays text.
            hide_empty: Leave buckets where no run has a value out of plots and LaTeX tables.

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
                raise ValueError(f'{where}: statistics that were compared are {", ".join(known)}, got {statistic!r}')

    def _tables(self) -> Iterator['PlainTable']:
        from .reporting.tables import comparison_tables

        yield from comparison_tables(self.report)


def make_result(records: Mapping[str, Records], targets: Targets, plan: EvaluationPlan, ground_truth: GroundTruth,
                categories: np.ndarray, proposal_nums: Sequence[int], **more: Any) -> EvaluationResult:
    """Summarize what was matched; arguments as for `EvaluationResult`."""
    report = summarize(plan, records, targets, proposal_nums, ground_truth.names_of(categories),
                       ground_truth.frequencies_of(categories))
    return EvaluationResult(report, records, targets, plan, ground_truth, categories, tuple(proposal_nums), **more)


def _chosen_iou_type(iou_type: str | None, report: Mapping) -> str:
    known = reported_iou_types(report)
    if iou_type is not None and iou_type not in known:
        raise ValueError(f'plot: expected one of {", ".join(known)}, the IoU types of this result, got {iou_type!r}')
    return iou_type or known[0]


def _written(figure: 'Figure', path: str | os.PathLike | None) -> 'Figure':
    from .reporting.plots import write_plot

    if path is not None:
        write_plot(figure, path)
    return figure


def _check_folder(folder: str | os.PathLike) -> None:
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ValueError(f'save: a folder is needed, {folder} is a file')
