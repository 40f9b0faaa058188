import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtied.datasets.recipe import RatioTargets, spread_position


@given(offset=st.floats(0, 1, exclude_max=True), start=st.integers(0, 50), power=st.integers(1, 3))
def test_positions_are_evenly_spread(offset, start, power):
    num = 10**power
    positions = np.array([spread_position(index, offset) for index in range(start * num, (start + 1) * num)])
    assert ((positions >= 0) & (positions < 1)).all()
    gaps = np.diff(np.sort(positions), append=positions.min() + 1)
    np.testing.assert_allclose(gaps, 1 / num, rtol=1e-6)


@given(data=st.data(), zero_share=st.floats(0, 0.9))
def test_accepted_ranges_follow_shares(data, zero_share):
    edges = sorted(data.draw(st.lists(st.integers(0, 100), min_size=2, max_size=6, unique=True)))
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(edges) - 1, max_size=len(edges) - 1))
    edges = [edge / 100 for edge in edges]
    targets = RatioTargets(edges, weights, zero_share)
    ranges = np.array([targets.accept(position) for position in np.linspace(0, 1, 2000, endpoint=False)])
    low, high = ranges.T
    zero = high == 0
    assert (low <= high).all()
    assert (high - low <= 2 * targets.tolerance + 1e-12).all()
    assert zero.mean() == pytest.approx(zero_share, abs=2e-3)
    for lower, upper, weight in zip(edges, edges[1:], weights, strict=False):
        inside = ~zero & (low >= lower) & (high < upper)
        assert inside.mean() == pytest.approx((1 - zero_share) * weight / sum(weights), abs=2e-3)


def test_default_weights_are_uniform():
    targets = RatioTargets(edges=(0, 0.1, 0.5), zero_share=0.5)
    np.testing.assert_allclose(targets.shares, [0.5, 0.1, 0.4])


@pytest.mark.parametrize('options, message', [
    (dict(edges=(0.5, )), 'ratio_edges must be two or more'),
    (dict(edges=(0, 0.5, 0.5)), 'increasing'),
    (dict(edges=(0, 1.2)), 'from 0 to 1'),
    (dict(edges=(0, float('nan'))), 'ratio_edges'),
    (dict(edges=(0, 0.5), weights=(1, 2)), '2 given, but 2 edges make 1 buckets'),
    (dict(edges=(0, 0.5), weights=(-1, )), 'ratio_weights must be numbers of at least 0'),
    (dict(edges=(0, 0.5), weights=(0, )), 'not all 0'),
    (dict(edges=(0, 0.5), zero_share=1.5), 'zero_share must be from 0 to 1'),
    (dict(edges=(0, 0.5), tolerance=0), 'tolerance must be more than 0'),
])
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        RatioTargets(**options)
