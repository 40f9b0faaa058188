"""Pairs that deploy must not fold, because they have uses outside the graph."""

import copy
import logging

import pytest
import torch
from torch import nn

from mmtied.layers import IGC, TBC
from mmtied.surgery import deploy
from tests.helpers.deployed import difference, norms, trained


class Pair(nn.Module):
    """Block of a convolution and its normalization."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 1), norm(8)

    def forward(self, x):
        return self.bn(self.conv(x))


class Activated(nn.BatchNorm2d):
    """Normalization with an additional operation."""

    def forward(self, x):
        return super().forward(x).relu()


class Branch(nn.Module):
    """Block that calls a shared layer in an untraceable forward."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x) if x.mean() > -1e9 else x


class SharedWithBranch(Pair):
    """Model whose branch has the convolution or the normalization under another name."""

    def __init__(self, shared: str) -> None:
        super().__init__()
        self.branch = Branch(getattr(self, shared))

    def forward(self, x):
        return super().forward(x) + self.branch(x)


class BranchFirst(Pair):
    """Model with the branch registered first."""

    def __init__(self) -> None:
        super().__init__()
        conv, bn = self.conv, self.bn
        del self.conv, self.bn
        self.branch = Branch(conv)
        self.conv, self.bn = conv, bn

    def forward(self, x):
        return super().forward(x) + self.branch(x)


class CallsInside(nn.Module):
    """Model that calls both a block and a part of it."""

    def __init__(self, block: nn.Module, part: str) -> None:
        super().__init__()
        self.block, self.part = block, part

    def forward(self, x):
        return self.block(x) + self.block.get_submodule(self.part)(x)


class CallsInsideAtTimes(CallsInside):
    """Model that calls both, with an optional argument."""

    def forward(self, x, scale=1.):
        return super().forward(x) * scale


class ReadsWeight(Pair):
    """Block that uses the filters twice, once without calling the layer."""

    def forward(self, x):
        return super().forward(x) + nn.functional.conv2d(x, self.conv.weight)


class Optional(Pair):
    """Block that normalizes only if there is a residual."""

    def forward(self, x, residual=None):
        x = self.conv(x)
        return x if residual is None else self.bn(x) + residual


class AnyNumber(Pair):
    """Block that normalizes only if there are further arguments."""

    def forward(self, x, *others):
        return super().forward(x) if others else self.conv(x)


def hooked(module: nn.Module, name: str = '') -> nn.Module:
    module.get_submodule(name).register_forward_hook(lambda module, inputs, output: output * 2)
    return module


CASES = {
    'norm with an activation': (Pair(Activated), 'bn (Activated)'),
    'norm with a hook': (hooked(Pair(), 'bn'), 'bn (BatchNorm2d)'),
    'conv shared with a branch': (SharedWithBranch('conv'), 'bn (BatchNorm2d)'),
    'norm shared with a branch': (SharedWithBranch('bn'), 'bn (BatchNorm2d)'),
    'branch first': (BranchFirst(), 'bn (BatchNorm2d)'),
    'part called beside the block': (CallsInside(Pair(), 'conv'), 'block.bn (BatchNorm2d)'),
    'norm called beside the block': (CallsInside(Pair(), 'bn'), 'block.bn (BatchNorm2d)'),
    'part of a Sequential': (CallsInside(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)), '0'), 'block.1 (BatchNorm2d)'),
    'part called with an argument': (CallsInsideAtTimes(Pair(), 'conv'), 'block.bn (BatchNorm2d)'),
    'weight read beside the call': (ReadsWeight(), 'bn (BatchNorm2d)'),
    'optional argument': (Optional(), 'bn (BatchNorm2d)'),
    'any number of arguments': (AnyNumber(), 'bn (BatchNorm2d)'),
    'tied layer with weight_norm': (nn.Sequential(nn.utils.parametrizations.weight_norm(TBC(8, 8, 1, num_blocks=2))),
                                    '0 (ParametrizedTBC)'),
    'tied layer with a hook': (nn.Sequential(hooked(TBC(8, 8, 1, num_blocks=2)), nn.ReLU()), '0 (TBC)'),
    'tied layer alone with a hook': (hooked(TBC(8, 8, 1, num_blocks=2)), 'the model (TBC)'),
    'tied layer with a hook in a part': (nn.Sequential(hooked(IGC(8, 8, 1, num_primary=4), 'primary')), None),
}


@pytest.mark.parametrize('case', CASES)
def test_unfoldable_pair_is_kept_and_logged(case, caplog):
    model, left = CASES[case]
    model = trained(copy.deepcopy(model), (16, 8, 6, 6))
    with caplog.at_level(logging.WARNING, 'mmtied'):
        deployed = deploy(model)
    assert difference(model, deployed, torch.randn(3, 8, 5, 5)) < 1e-5
    if left is not None:
        assert [record.getMessage() for record in caplog.records] == [f'deploy: left as they are: {left}']


def test_optional_argument_still_works():
    model = trained(Optional(), (16, 8, 6, 6)).eval()
    x, residual = torch.randn(2, 2, 8, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(deploy(model)(x, residual), model(x, residual))


def test_replaced_forward_is_kept():
    norm = nn.BatchNorm2d(8)
    norm.forward = torch.relu
    model = nn.Sequential(nn.Conv2d(8, 8, 1), norm)
    assert difference(model, deploy(model), torch.randn(3, 8, 5, 5)) < 1e-5


def test_pairs_in_lists_and_shared_blocks_fold():
    class Lists(nn.Module):
        """Parent that calls a pair in a list and a pair in a Sequential."""

        def __init__(self) -> None:
            super().__init__()
            self.convs, self.bns = nn.ModuleList([nn.Conv2d(8, 8, 1)]), nn.ModuleDict({'first': nn.BatchNorm2d(8)})
            self.after, self.last = nn.Sequential(nn.Sequential(nn.Conv2d(8, 8, 1))), nn.BatchNorm2d(8)

        def forward(self, x):
            return self.last(self.after(self.bns['first'](self.convs[0](x))))

    block = Pair()
    model = trained(nn.Sequential(block, nn.Sequential(Lists(), nn.ReLU()), block), (16, 8, 6, 6))
    deployed = deploy(model)
    assert difference(model, deployed, torch.randn(3, 8, 5, 5)) < 1e-5
    assert not norms(deployed)


@pytest.mark.parametrize('model', [SharedWithBranch('conv'), BranchFirst(), ReadsWeight()],
                         ids=lambda model: type(model).__name__)
def test_graph_copies_a_layer_with_other_users(model):
    """In the graph of a backbone, the folded copy gets a new name."""
    from mmtied.surgery.fold import as_folded_graph

    model = trained(copy.deepcopy(model), (16, 8, 6, 6)).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    expected = copy.deepcopy(model)
    graph = as_folded_graph(model)
    assert not norms(graph)
    assert difference(expected, graph, torch.randn(3, 8, 5, 5)) < 1e-5
