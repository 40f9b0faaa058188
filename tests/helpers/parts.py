"""The standard error of a statistic from random parts of the images, in plain loops, as docs/statistics.md says it."""

import numpy as np


def error_of_parts(values, num_images):
    """Return the root of v2**2 / v4 for values of splits: four quarters, then three pairs of halves."""
    sizes = [len(range(place, num_images, 4)) for place in range(4)]
    by_quarters, by_halves = [], []
    for quarters in np.reshape(values, (-1, 10)):
        mean = np.average(quarters[:4], weights=sizes)
        by_quarters.append(sum(size * (value - mean)**2 for size, value in zip(sizes, quarters[:4], strict=True)) / 3)
        for place, other in enumerate((1, 2, 3)):
            size = sizes[0] + sizes[other]
            rest = num_images - size
            half, against = quarters[4 + 2 * place:6 + 2 * place]
            mean = (size * half + rest * against) / num_images
            by_halves.append(size * (half - mean)**2 + rest * (against - mean)**2)  # one degree of freedom
    v4, v2 = np.mean(by_quarters) / num_images, np.mean(by_halves) / num_images
    return np.sqrt(v2 * np.clip(v2 / v4, .5, 2))
