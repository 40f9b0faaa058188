import numpy as np
import pytest

from mmtied.datasets.layout import find_layout, place
from mmtied.datasets.shapes import CATEGORIES, Shape


def block(height, width):
    return Shape('square', np.ones((height, width), dtype=np.float32))


def test_place_matches_hand_count():
    """A 4 x 2 block covers the right half of a 4 x 4 one: the boxes of the visible parts do not overlap."""
    layout = place((block(4, 4), block(4, 2), block(2, 2)), np.array([[1, 1], [3, 1], [4, 2]]), size=8)
    expected = np.full((8, 8), -1)
    expected[1:5, 1:5] = 0
    expected[1:5, 3:5] = 1
    expected[2:4, 4:6] = 2
    np.testing.assert_array_equal(layout.labels, expected)
    np.testing.assert_array_equal(layout.boxes_xywh, [[1, 1, 2, 4], [3, 1, 2, 4], [4, 2, 2, 2]])
    np.testing.assert_allclose(layout.visible, [0.5, 0.75, 1])
    assert layout.ratio == pytest.approx((2 + 2) / (8 + 8 + 4))


def test_hidden_shape_has_an_empty_box():
    layout = place((block(2, 2), block(4, 4)), np.array([[3, 3], [2, 2]]), size=8)
    assert layout.boxes_xywh[0, 2:].tolist() == [0, 0]
    assert layout.visible.tolist() == [0, 1]


@pytest.mark.parametrize('num_shapes', [2, 3, 8, 20])
@pytest.mark.parametrize('ratio', [0., 0.004, 0.3, 0.6, 0.85])
def test_layout_reaches_ratio_and_min_visible(num_shapes, ratio):
    accept = (0., 0.) if ratio == 0 else (ratio - 0.003, ratio + 0.003)
    for seed in range(3):
        layout = find_layout(np.random.default_rng(seed), 160, num_shapes, accept, min_visible=0.25)
        assert len(layout.shapes) == num_shapes
        assert accept[0] <= layout.ratio <= accept[1]
        assert layout.visible.min() >= 0.25
        whole = np.array([shape.mask.sum() for shape in layout.shapes])
        seen = np.array([(layout.labels == index).sum() for index in range(num_shapes)])
        np.testing.assert_allclose(seen, layout.visible * whole)
        assert seen.min() >= 30


def test_ratio_is_nearly_independent_of_size_and_category():
    def survey(ratio):
        layouts = [find_layout(np.random.default_rng([seed, int(ratio * 10)]), 160, 5, (ratio, ratio + 0.01), 0.25)
                   for seed in range(60)]
        areas = [(layout.labels == index).sum() for layout in layouts for index in range(5)]
        names = [shape.category for layout in layouts for shape in layout.shapes]
        return np.median(areas), np.array([names.count(category) for category in CATEGORIES]) / len(names)

    (apart_area, apart_shares), (piled_area, piled_shares) = survey(0.1), survey(0.8)
    assert piled_area == pytest.approx(apart_area, rel=0.25)
    np.testing.assert_allclose(apart_shares, 1 / 6, atol=0.08)
    np.testing.assert_allclose(piled_shares, 1 / 6, atol=0.08)


def test_unreachable_ratio_raises():
    with pytest.raises(ValueError, match='found no layout of 1 shapes in 64 x 64 pixels'):
        find_layout(np.random.default_rng(0), 64, 1, accept=(0.4, 0.5), min_visible=0.25)
