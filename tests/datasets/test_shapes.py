import numpy as np
import pytest

from mmtied.datasets.shapes import CATEGORIES, TEXTURES, draw_shape, draw_texture

# Areas of the outlines inscribed in a unit circle (cross: in the square from -1 to 1), from their formulas.
AREAS = {
    'circle': np.pi,
    'square': 2,
    'triangle': 3 * np.sqrt(3) / 4,
    'star': 10 * 0.45 * np.sin(np.pi / 5) / 2,
    'ring': np.pi * (1 - 0.52**2),
    'cross': 4 - 4 * 0.64**2,
}


@pytest.mark.parametrize('category', CATEGORIES)
def test_area_matches_formula(category):
    extent = {'circle': 2, 'square': 2, 'triangle': np.sqrt(3), 'star': 2 * np.sin(2 * np.pi / 5), 'ring': 2, 'cross': 2}
    coverage = draw_shape(category, 200, angle=0)
    assert max(coverage.shape) == 200
    assert coverage.sum() * (extent[category] / 200)**2 == pytest.approx(AREAS[category], rel=0.02)


@pytest.mark.parametrize('category', CATEGORIES)
@pytest.mark.parametrize('angle', [0., 0.4, 2.5])
def test_coverage_fills_its_bounding_box(category, angle):
    coverage = draw_shape(category, 47, angle)
    mask = coverage >= 0.5
    assert coverage.min() >= 0
    assert coverage.max() <= 1
    assert max(coverage.shape) == 47
    ys, xs = np.nonzero(mask)
    height, width = coverage.shape
    assert ys.min() <= 2 and xs.min() <= 2 and ys.max() >= height - 3 and xs.max() >= width - 3


def test_full_rotation_is_the_identity():
    for category in CATEGORIES:
        np.testing.assert_allclose(draw_shape(category, 50, 0.3), draw_shape(category, 50, 0.3 + 2 * np.pi), atol=0.3)


def test_ring_has_a_hole():
    assert draw_shape('ring', 41, 0)[20, 20] == 0
    assert draw_shape('circle', 41, 0)[20, 20] == 1


@pytest.mark.parametrize('category', CATEGORIES)
def test_textures_are_reproducible(category):
    first, again, other = (draw_texture(np.random.default_rng(seed), category, 48, 40, period=10) for seed in (0, 0, 1))
    assert first.shape == (48, 40, 3)
    assert first.min() >= 0
    assert first.max() <= 1
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    line = first.reshape(-1, 3) - first.reshape(-1, 3).mean(axis=0)
    assert np.linalg.svd(line, compute_uv=False)[1] < 1e-3, 'every pixel is a mixture of two colors'
    assert first.std(axis=(0, 1)).max() > 0.1


def test_textures_differ_between_categories():
    assert set(TEXTURES) == set(CATEGORIES)
    u, v = np.meshgrid(np.linspace(-3, 3, 240), np.linspace(-3, 3, 240))
    patterns = [TEXTURES[category](u, v) for category in CATEGORIES]
    for index, pattern in enumerate(patterns):
        for other in patterns[:index]:
            assert 0.2 < (pattern != other).mean() < 0.8
