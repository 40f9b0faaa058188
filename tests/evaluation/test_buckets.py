import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtied.evaluation.buckets import bucket_members, make_buckets
from tests.helpers.buckets import assign_buckets


def test_default_buckets():
    buckets = make_buckets()
    assert [bucket.name for bucket in buckets][:3] + [buckets[-1].name] == ['r=0', '(0,0.1)', '[0.1,0.2)', '[0.9,1]']
    assert [bucket.key for bucket in buckets][:3] + [buckets[-1].key] == ['r0', 'r0-0.1', 'r0.1-0.2', 'r0.9-1']
    assert [(bucket.lower, bucket.upper) for bucket in buckets][3] == (.2, .3)


@given(st.integers(0, 1000))
def test_lower_edge_belongs_to_bucket(thousandth):
    number = assign_buckets(np.array([thousandth / 1000]), make_buckets())[0]
    assert number == (0 if thousandth == 0 else min(thousandth // 100, 9) + 1)


def test_ratios_outside_every_bucket():
    assert assign_buckets(np.array([1.2, np.nan, .1]), make_buckets([.2, .5])).tolist() == [-1, -1, -1]
    assert assign_buckets(np.array([1.2, 2, .2, 0]), make_buckets([.2, 1, 2])).tolist() == [1, 1, 0, -1]


@pytest.mark.parametrize('edges', [[], [0], [0, 0], [0, .5, .4], [-.1, 1], [0, np.inf], [0, np.nan], ['a', 'b'],
                                   [False, True], .5, None, '01', np.array(1.)])
def test_invalid_edges(edges):
    with pytest.raises(ValueError, match='bucket edges'):
        make_buckets(edges)


@pytest.mark.parametrize(('edges', 'lowers'), [
    ((0, .5, .8), [0, .5, .8]), ((0, .5, 1), [0, .5]), ((.8, 1), [.8]), ((0, 1, 2), [0, 1, 2])])
def test_cumulative_buckets_start_at_each_edge_except_1(edges, lowers):
    assert [bucket.lower for bucket in make_buckets(edges, cumulative=True)] == lowers


def test_cumulative_bucket_members():
    buckets = make_buckets([0, .5, 1], cumulative=True)
    assert [(bucket.name, bucket.key) for bucket in buckets] == [('r>=0', 'r0-up'), ('r>=0.5', 'r0.5-up')]
    ratios = np.array([0, .49, .5, 1, 1.4, np.nan])
    assert bucket_members(ratios, buckets).T.tolist() == [[True] * 5 + [False], [False] * 2 + [True] * 3 + [False]]
