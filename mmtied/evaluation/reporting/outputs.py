"""Everything that an evaluation writes into a folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from ..evaluated import Evaluated
from ..records_file import make_run, write_records
from .examples import WorstImages
from .plots import write_plots
from .report import write_report
from .report_page import write_page
from .runs import Run


def write_outputs(evaluated: Evaluated, folder: str | os.PathLike, name: str,
                  examples: WorstImages | None = None) -> Iterator[Path]:
    """Write records.npz, ap_over_r_<iou type>.png, report.html, buckets.csv and report.json, each whole or not at all.

    report.json comes last: where writing fails, there is no new one beside old files.

    Args:
        evaluated: The run.
        folder: Where to write.
        name: How the page calls the run.
        examples: Images where it did worst, for the page.

    Yields:
        Each path when it is written.
    """
    yield write_records(make_run(evaluated), folder)
    yield from write_plots(evaluated.report, folder).values()
    yield write_page(Path(folder) / 'report.html', [Run(name, evaluated.report)], examples)
    yield from write_report(evaluated.report, folder)
