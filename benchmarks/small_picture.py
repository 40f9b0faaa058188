"""Plots for the page: small files, whole or not at all."""

from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

from mmtied.atomic import atomic_path  # noqa: E402


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of 64 colours, a third of the size of one with all, and close it."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=90)
    plt.close(figure)
    with atomic_path(path) as temporary:
        Image.open(buffer).convert('RGB').quantize(64).save(temporary, format='PNG', optimize=True)
