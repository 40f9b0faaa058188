"""Permuted channels: outputs stay the same, and tied layers get closer."""

import itertools

import pytest
import torch
from torch import nn

from mmtied.surgery import deploy, tie
from mmtied.surgery.permute import _greedy_order, _kept, find_spaces, permute_alike
from mmtied.surgery.tie import format_changes


def randomize(model):
    """Give BatchNorm statistics and weights that differ between channels."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_()
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(.5, 2.)
    model.eval()  # returns None in mmdet
    return model


def chain():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU6(),
                         nn.Conv2d(16, 32, 1), nn.Hardswish(), nn.Conv2d(32, 8, 3, bias=False))


def torchvision_resnet():
    from torchvision.models import ResNet, resnet
    return ResNet(resnet.Bottleneck, [1, 2, 1, 1], width_per_group=16)


def mmdet_resnet():
    pytest.importorskip('mmdet')
    from mmdet.models import ResNet
    return ResNet(18, base_channels=8, stem_channels=8)


@pytest.mark.parametrize(('make', 'spaces'), [(chain, 2), (torchvision_resnet, 10), (mmdet_resnet, 8)])
@pytest.mark.parametrize('num_blocks', [2, 4])
@torch.no_grad()
def test_outputs_stay_and_errors_fall(make, spaces, num_blocks):
    torch.manual_seed(0)
    model = randomize(make())
    images = torch.rand(2, 3, 32, 32)
    before = model(images)
    tied, changes = tie(model, num_blocks, permute=True)
    plain = {change.name: change for change in tie(model, num_blocks)[1]}
    torch.testing.assert_close(model(images), before, rtol=0, atol=0)  # the model is unchanged
    assert all(change.error_in_order == plain[change.name].relative_error for change in changes)

    def total(errors):
        return sum(error**2 * change.weights for error, change in zip(errors, changes, strict=True))

    assert total([change.relative_error for change in changes]) < .998 * total([change.error_in_order for change in changes])
    convs = [module for module in model.modules() if type(module).__name__ == 'Conv2d' and module.groups == 1
             and module.in_channels % num_blocks == 0]
    weights = [module.weight.clone() for module in convs]
    assert permute_alike(model, num_blocks, convs) == spaces
    assert any(not torch.equal(module.weight, weight) for module, weight in zip(convs, weights, strict=True))
    torch.testing.assert_close(model(images), before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(deploy(tied)(images), tied(images), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_hidden_blocks_are_found():
    """A network that is tied except for the order of its inner channels is tied without error."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 3))
    for layer, (rows, columns) in zip((model[0], model[2]), ((8, 4), (4, 8)), strict=True):
        thin = torch.randn(rows, columns, *layer.kernel_size)
        layer.weight.zero_()
        layer.weight[:rows, :columns] = layer.weight[rows:, columns:] = thin
        layer.bias.copy_(torch.randn(rows).repeat(2))
    space, = find_spaces(model)
    space.reorder(torch.randperm(16))
    images = torch.rand(1, 8, 6, 6)
    tied, changes = tie(model, permute=True)
    assert all(change.error_in_order > .3 for change in changes)
    assert all(change.relative_error < 1e-6 for change in changes)
    torch.testing.assert_close(tied(images), model(images))
    assert 'unpermuted' in format_changes(changes)


@pytest.mark.parametrize(('channels', 'count'), [(6, 2), (6, 3)])
def test_greedy_order_is_better_than_most(channels, count):
    torch.manual_seed(0)
    for _ in range(5):
        vectors = torch.randn(channels, count, 4, dtype=torch.float64)
        order = _greedy_order(vectors)
        assert sorted(order.tolist()) == list(range(channels))
        others = torch.tensor([_kept(vectors[list(other)]) for other in itertools.permutations(range(channels))])
        assert _kept(vectors[order]) <= others.max() + 1e-9
        assert (others < _kept(vectors[order])).float().mean() > .5


class Branches(nn.Module):
    """The channels of `first` go to two convolutions, those of `second` into a sum, those of `third` out."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third, self.fourth = (nn.Conv2d(4, 4, 1) for _ in range(4))

    def forward(self, x):
        shared = self.first(x).relu()
        return self.second(shared) + self.third(shared), self.fourth(self.fourth(x))


def test_only_channels_that_nothing_else_touches():
    model = Branches()
    space, = find_spaces(model)
    assert space.before is model.first
    assert space.after == [model.second, model.third]
    model.second.weight = model.third.weight
    assert list(find_spaces(model)) == []
    hooked = chain()
    hooked[5].register_forward_hook(lambda *_: None)
    assert list(find_spaces(hooked)) == []
