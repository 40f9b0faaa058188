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

from .accumulate import Positives, Records
from .buckets import EvaluationPlan
from .comparison import comparison_rows
from .inputs.ground_truth import GroundTruth
from .inputs.results import Detections
from .intervals import Bootstrap, add_intervals
from .occlusion import get_occlusion_ratio, image_ratios
from .protocol import STATISTICS
from .records import SavedGroups, SavedRun, fingerprint, mask_fingerprint
from .summary import (
    all_evaluations,
    describe_evaluation,
    format_number,
    named_rows,
    report_rows,
    reported_iou_types,
)
from .targets import Targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _Tables:
    """Tables of numbers as text, as HTML for notebooks, as dicts and as a data frame."""

    def rows(self) -> list[dict]:
        """Return the numbers as one flat table, a dict for each row."""
        raise NotImplementedError

    def table(self) -> Any:
        """Return `rows` as a pandas DataFrame where pandas is installed, else as they are."""
        try:
            import pandas
        except ImportError:
            return self.rows()
        return pandas.DataFrame(self.rows())

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Yield title, header and cells of each table to show."""
        raise NotImplementedError

    def __repr__(self) -> str:
        texts = []
        for title, header, rows in self._tables():
            widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
            texts.append(title)
            for first, *rest in (header, *rows):
                cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
                texts.append('  '.join([first.ljust(widths[0]), *cells]))
        return '\n'.join(texts)

    def _repr_html_(self) -> str:
        """Return the tables as HTML; names from data are text, never markup."""
        def line(cells: Sequence[str], tag: str) -> str:
            return '<tr>' + ''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells) + '</tr>'

        return '\n'.join(f'<table><caption>{html.escape(title)}</caption>{line(header, "th")}'
                         f'{"".join(line(row, "td") for row in rows)}</table>' for title, header, rows in self._tables())


@dataclass(frozen=True, repr=False, eq=False)
class EvaluationResult(_Tables):
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
        detections: The detections by IoU type, for pictures; None where only their records were kept.
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
        """Return the same with confidence intervals in the report, see `intervals.add_intervals`."""
        report = add_intervals(self.report, self.records, self.targets.positives(), self.plan.groupings,
                               self.targets.num_categories, bootstrap, self.proposal_nums)
        return replace(self, report=report)

    @property
    def picture_ratios(self) -> np.ndarray:
        """The ratio of every image by the main evaluation's definition, also where instances are bucketed, shape (I,)."""
        main = self.plan.evaluations[0]
        if main.unit == 'image':
            return self.plan.ratios[0]
        return image_ratios(self.ground_truth, main.definition, main.same_category)

    def saved_run(self) -> SavedRun:
        """Return what ``records.npz`` keeps, on the CPU, from which runs are compared."""
        ground_truth, evaluations = self.ground_truth, []
        for part, groups in zip(all_evaluations(self.report), self.plan.groupings, strict=True):
            table = part[next(iter(self.records))]
            description = {key: part[key] for key in ('definition', 'unit', 'cumulative')}
            description['buckets'] = [{key: row[key] for key in ('name', 'lower', 'upper')} for row in table['buckets']]
            evaluations.append(SavedGroups(description, groups.members.cpu(), groups.columns.cpu()))
        category_ids = ground_truth.category_ids[self.categories].tolist()
        has_masks = 'segm' in self.records or any(get_occlusion_ratio(evaluation.definition).needs_masks
                                                  for evaluation in self.plan.evaluations)
        return SavedRun(source=ground_truth.source,
                        records={name: Records(*(column.cpu() for column in table)) for name, table in self.records.items()},
                        positives=Positives(*(column.cpu() for column in self.targets.positives())),
                        image_ids=ground_truth.image_ids,
                        category_names=tuple(str(ground_truth.category_names[number]) for number in category_ids),
                        evaluations=tuple(evaluations),
                        proposal_nums=self.proposal_nums,
                        fingerprint=fingerprint(ground_truth),
                        mask_fingerprint=mask_fingerprint(ground_truth) if has_masks else '')

    def rows(self) -> list[dict]:
        """Return a row for all images and for each bucket of every evaluation and IoU type, as in ``buckets.csv``."""
        return report_rows(self.report)

    def plot(self, iou_type: str | None = None) -> 'Figure':
        """Plot AP over the occlusion ratio, by default of the first IoU type."""
        from .reporting.plots import plot_ap_over_r

        return plot_ap_over_r(self.report, _chosen_iou_type(iou_type, self.report))

    def save(self, folder: str | os.PathLike, images: str | os.PathLike | None = None, num_worst: int = 3) -> list[Path]:
        """Write ``records.npz``, plots, ``report.html``, ``buckets.csv`` and ``report.json`` into a folder.

        The files have intervals where `report` and `rows` have them: after ``evaluate(..., bootstrap=True)`` or
        `with_intervals`.

        Args:
            folder: Where to write; made where it is missing.
            images: Folder of the images, to show on the page those where the detector did worst.
            num_worst: How many images of each bucket to show.

        Returns:
            The paths of the files.

        Raises:
            ValueError: `folder` is a file, an image is not in `images`, or the detections of this run are not known.
        """
        from .reporting.files import write_outputs

        _check_folder(folder)
        examples = None if images is None else self._worst_images(images, num_worst)
        return list(write_outputs(self, folder, self.name, examples))

    def _worst_images(self, images: str | os.PathLike, num_worst: int) -> Any:
        from .inputs.images import image_paths
        from .reporting.pictures import draw_worst, shown_of

        if not self.detections:
            raise ValueError('images: the detections of this result are not known; evaluate them again to draw pictures')
        iou_type = 'segm' if 'segm' in self.detections else 'bbox'
        detections = self.detections[iou_type].arrays()
        paths = image_paths(self.ground_truth, images)
        return draw_worst(self, iou_type, lambda image: shown_of(detections, image), paths.__getitem__, num_worst)

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        for evaluation in all_evaluations(self.report):
            for iou_type in reported_iou_types(evaluation):
                rows = [[name, str(row['images']), str(row['instances']), *(format_number(row.get(key)) for key in STATISTICS)]
                        for name, row in named_rows(evaluation, iou_type)]
                title = f'{self.name}, {iou_type}: by occlusion ratio r ({describe_evaluation(evaluation)})'
                yield title, ['r', 'images', 'instances', *STATISTICS], rows


@dataclass(frozen=True, repr=False, eq=False)
class ComparisonResult(_Tables):
    """Runs compared with the first of them.

    Args:
        report: Values and differences with intervals, see `comparison.compare_runs`.
    """

    report: dict

    def rows(self) -> list[dict]:
        """Return a row for each set of images, statistic and run but the first, as in ``comparison.csv``."""
        return list(comparison_rows(self.report))

    def plot(self, iou_type: str | None = None) -> 'Figure':
        """Plot the differences over the occlusion ratio with their intervals, by default of the first IoU type."""
        from .reporting.plots import plot_comparison

        return plot_comparison(self.report, _chosen_iou_type(iou_type, self.report['evaluations'][0]))

    def save(self, folder: str | os.PathLike) -> list[Path]:
        """Write ``comparison.json`` and ``comparison.csv`` into a folder and return their paths."""
        from .reporting.files import write_comparison

        _check_folder(folder)
        return write_comparison(self.report, folder)

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        header = ['r', 'images', 'statistic', 'baseline', 'value', 'difference', 'low', 'high', 'share above 0']
        keys = ('baseline_value', 'value', 'difference', 'low', 'high', 'share_above_zero')
        tables: dict[str, list[list[str]]] = {}
        for row in self.rows():
            title = f'{row["run"]} against {row["baseline"]}, {row["iou_type"]} ({describe_evaluation(row)})'
            tables.setdefault(title, []).append([row['name'], str(row['images']), row['statistic'],
                                                 *(format_number(row[key]) for key in keys)])
        for title, rows in tables.items():
            yield title, header, rows


def _chosen_iou_type(iou_type: str | None, report: Mapping) -> str:
    known = reported_iou_types(report)
    if iou_type is not None and iou_type not in known:
        raise ValueError(f'plot: expected one of {", ".join(known)}, the IoU types of this result, got {iou_type!r}')
    return iou_type or known[0]


def _check_folder(folder: str | os.PathLike) -> None:
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ValueError(f'save: a folder is needed, {folder} is a file')
