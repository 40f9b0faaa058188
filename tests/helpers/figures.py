"""Reports without their figures, whose drawing takes most of a small evaluation's time; the tests of reporting draw them."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def blank_figures() -> Iterator[None]:
    """Leave the figures of pages blank, and make those of files a few pixels large."""
    from mmtied.evaluation.reporting import page, plots
    from mmtied.plotting import new_figure, write_figure
    drawn = {name: lambda *_, **__: None for name in ('plot_runs', 'plot_mix', 'plot_shared', 'plot_measure')}
    with (mock.patch.multiple(page, svg_bytes=lambda figure: b'<svg xmlns="http://www.w3.org/2000/svg"/>', **drawn),
          mock.patch.object(plots, 'write_figure', lambda figure, path: write_figure(new_figure(.1, .1), path))):
        yield
