import pytest
import torch

from mmtied.evaluation.intervals import image_weights, percentile_interval


def test_every_replicate_draws_as_many_images_as_there_are():
    weights = image_weights(37, 200, seed=3)
    assert weights.shape == (200, 37)
    assert bool((weights.sum(1) == 37).all())
    assert abs(weights.float().var().item() - (1 - 1 / 37)) < .1  # each count is binomial(37, 1/37)


def test_a_seed_gives_the_same_draws_and_another_seed_others():
    assert torch.equal(image_weights(20, 9, seed=1), image_weights(20, 9, seed=1))
    assert not torch.equal(image_weights(20, 9, seed=1), image_weights(20, 9, seed=2))
    assert torch.equal(image_weights(20, 9, seed=1)[:5], image_weights(20, 5, seed=1))


def test_the_interval_holds_its_share_and_widens_with_the_level():
    values = torch.randn(1001, dtype=torch.float64)
    low, high = percentile_interval(values, .9)
    assert ((values >= low) & (values <= high)).double().mean().item() == pytest.approx(.9, abs=.002)
    wider = percentile_interval(values, .99)
    assert wider[0] < low < high < wider[1]
    assert percentile_interval(values + 3, .9) == pytest.approx((low + 3, high + 3))


def test_undefined_replicates_are_left_out():
    values = torch.tensor([float('nan'), 2., float('nan'), 2.], dtype=torch.float64)
    assert percentile_interval(values) == (2, 2)
    assert percentile_interval(values[:1]) is None


@pytest.mark.parametrize('level', [0, 1, 95])
def test_a_level_that_is_no_share_is_named(level):
    with pytest.raises(ValueError, match=f'such as 0.95; got {level}'):
        percentile_interval(torch.zeros(3), level)
