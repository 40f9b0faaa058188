"""Reports of several runs that can be shown together."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .report import all_evaluations, describe_evaluation, read_report, reported_iou_types


class Run(NamedTuple):
    """A detector's evaluation.

    Args:
        name: How figures and tables call it.
        report: What `summary.summarize` returns.
    """

    name: str
    report: dict


def read_runs(paths: Sequence[str | os.PathLike], names: Sequence[str] | None = None) -> list[Run]:
    """The runs in some folders that hold a report.json, or in such files.

    Args:
        paths: Folders or files.
        names: One for each, `name_runs` by default.

    Raises:
        ValueError: No path, an unreadable report, names that are not one for each path or not distinct.
    """
    if not paths:
        raise ValueError('no folder with a report.json is given')
    files = [Path(path) / 'report.json' if Path(path).is_dir() else Path(path) for path in paths]
    names = name_runs(files) if names is None else list(names)
    if len(names) != len(files):
        raise ValueError(f'{len(files)} runs need {len(files)} names, got {len(names)}: {", ".join(names)}')
    if len(set(names)) != len(names):
        raise ValueError(f'the runs need distinct names, got {", ".join(names)}')
    return [Run(name, read_report(file)) for name, file in zip(names, files, strict=True)]


def name_runs(files: Sequence[Path]) -> list[str]:
    """A short name for each report.json, from the folders that tell them apart.

    The folder ``occlusion``, which `OcclusionEvalHook` writes into, tells nothing.

    Example:
        >>> name_runs([Path('/runs/r50/occlusion/report.json'), Path('/runs/tied/occlusion/report.json')])
        ['r50', 'tied']
    """
    folders = [file.resolve().parent for file in files]
    if len(folders) == 1 and folders[0].name == 'occlusion':
        folders = [folders[0].parent]
    return distinct_ends([folder.parts for folder in folders])


def distinct_ends(paths: Sequence[Sequence[str]]) -> list[str]:
    """The shortest ends of some paths that tell them apart, without what all of them end with; equal paths stay equal.

    Example:
        >>> distinct_ends([('w', 'r50', 'occlusion'), ('w', 'tied', 'occlusion')])
        ['r50', 'tied']
    """
    while len(paths) > 1 and all(len(path) > 1 for path in paths) and len({path[-1] for path in paths}) == 1:
        paths = [path[:-1] for path in paths]
    for length in range(1, max(map(len, paths)) + 1):
        ends = ['/'.join(path[-length:]) for path in paths]
        if len(set(ends)) == len(ends):
            break
    return ends


def shared_evaluations(runs: Sequence[Run]) -> list[list[Run]]:
    """The evaluations that all runs have: the main one first, then the further ones; each with its report of every run.

    Raises:
        ValueError: No run, or main evaluations that cannot be compared.
    """
    if not runs:
        raise ValueError('at least one run is needed')
    check_comparable(runs)
    shared = [list(runs)]
    for evaluation in runs[0].report.get('further', []):
        others = [next((other for other in all_evaluations(run.report)[1:] if _outline(other) == _outline(evaluation)), None)
                  for run in runs]
        if None not in others:
            shared.append([Run(run.name, other) for run, other in zip(runs, others, strict=True)])
    return shared


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise a ValueError unless all runs were evaluated the same way on the same data."""
    first = runs[0]
    for run in runs[1:]:
        for what, of in (('ratio', describe_evaluation), ('IoU types', reported_iou_types), ('buckets', _bucket_names)):
            if of(first.report) != of(run.report):
                raise ValueError(f'runs that are shown together need the same {what}: {first.name} has '
                                 f'{of(first.report)}, {run.name} has {of(run.report)}')
        if _outline(first.report) != _outline(run.report):
            raise ValueError(f'runs that are shown together need the same images and instances: {first.name} has '
                             f'{_counts(first.report)}, {run.name} has {_counts(run.report)} (all, then each bucket)')


def _bucket_names(report: dict) -> list[str]:
    return [bucket['name'] for bucket in report[reported_iou_types(report)[0]]['buckets']]


def _counts(report: dict) -> list[tuple[int, int]]:
    table = report[reported_iou_types(report)[0]]
    return [(row['images'], row['instances']) for row in (table['all'], *table['buckets'])]


def _outline(report: dict) -> tuple:
    """Equal for reports that differ in the detector only."""
    return describe_evaluation(report), reported_iou_types(report), _bucket_names(report), _counts(report)
