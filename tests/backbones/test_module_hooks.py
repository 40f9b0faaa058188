"""Pruning, weight normalization, forward hooks and FSDP, which act through a module's hooks, reach every layer."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.utils import parametrizations, prune

import mmtied.backbones as backbones
from mmtied.layers import IGC, TBC, TFC, TGC, DGConv, FilterBasis, SharedBasisConv, SharedConv2d, SumFusion
from mmtied.plugins import TiedGCB, TiedSE
from mmtied.related.shared_bases.backbones import SharedStage
from mmtied.surgery import deploy, freeze_groups
from tests.helpers.families import FAMILIES, tiny
from tests.helpers.torch_versions import needs_fsdp_on_cpu


class ByLastDimension(nn.Module):
    """Apply a linear layer to the pixels of an image."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.movedim(1, -1)).movedim(-1, 1)


def shared(layer: type[nn.Module], filters: nn.Conv2d, **settings: int) -> SharedStage:
    return SharedStage([layer(8, 8, 3, padding=1, filters=filters, **settings) for _ in range(2)], {'basis': filters})


#: Each takes eight channels.
LAYERS: dict[str, Callable[[], nn.Module]] = {
    'TBC': lambda: TBC(8, 8, 3, padding=1),
    'TGC': lambda: TGC(8, 8, 3, padding=1, groups=2),
    'TFC': lambda: ByLastDimension(TFC(8, 8)),
    'TiedSE': lambda: TiedSE(8, ratio=1),
    'TiedGCB': lambda: TiedGCB(8, ratio=1 / 2),
    'IGC': lambda: IGC(8, 8, 3, padding=1, num_primary=4),
    'IGC by shuffling': lambda: IGC(8, 144, 3, padding=1, num_primary=8),
    'SumFusion': lambda: SumFusion(8, 8, 3, padding=1),
    'DGConv': lambda: DGConv(8, 8, 3, padding=1),
    'SharedConv2d': lambda: shared(SharedConv2d, FilterBasis(8, 8, 3)),
    'SharedConv2d of a Conv2d': lambda: shared(SharedConv2d, nn.Conv2d(8, 8, 3, padding=1, bias=False)),
    'SharedBasisConv': lambda: shared(SharedBasisConv, FilterBasis(8, 8, 3), num_unique=2),
}
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    **{family: lambda family=family: tiny(family, num_stages=2, out_indices=(1, )) for family in FAMILIES},
    'GResNeXt': lambda: backbones.GResNeXt(50, base_channels=8, num_stages=2, out_indices=(1, )),
    'IGCNet': lambda: backbones.IGCNet(18, base_channels=16, num_stages=2, out_indices=(1, )),
    'SharedResNet': lambda: backbones.SharedResNet(50, base_channels=8, num_bases=3, num_stages=2, out_indices=(1, )),
    'SharedResNet-18': lambda: backbones.SharedResNet(18, base_channels=8, unique_elements=8, num_stages=2, out_indices=(1, )),
    'SharedMobileNetV2': lambda: backbones.shared_mobilenet_v2(num_bases=2, widen_factor=0.25),
    'TiedEfficientNet': lambda: backbones.tied_efficientnet('b0'),
}
NETWORKS = {**LAYERS, **BACKBONES}
each_network = pytest.mark.parametrize('name', NETWORKS)


def make(name: str) -> tuple[nn.Module, Tensor]:
    """Build a layer or a backbone in float64, and an input for it."""
    network = NETWORKS[name]().double().eval()
    for parameter in network.parameters():  # TiedGCB and residual branches start with zeros
        parameter.data.copy_(torch.randn_like(parameter) / max(1, parameter[0].numel())**0.5 if parameter.dim() > 1
                             else torch.rand_like(parameter) - 0.4)
    x = torch.rand(2, 8, 6, 6) if name in LAYERS else torch.rand(2, 3, 32, 32)
    return network, x.double().to(memory_format=torch.channels_last if 'shuffling' in name else torch.contiguous_format)


def output(network: nn.Module, x: Tensor) -> Tensor:
    out = network(x)
    return out if isinstance(out, Tensor) else out[-1]


def products(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}


@each_network
def test_every_module_with_parameters_is_called(name):
    network, x = make(name)
    expected = {module for module in network.modules() if list(module.parameters(recurse=False))}
    called = set()
    for module in expected:
        module.register_forward_hook(lambda module, *_: called.add(module))
    network(x)
    assert {type(module).__name__ for module in expected - called} == set()


def normalized(direction: Tensor, length: Tensor) -> Tensor:
    return direction * length / direction.flatten(1).norm(dim=1).view_as(length)


#: Ways to alter a layer, and the weight that its parameters then represent.
ALTERATIONS = {
    'prune': (lambda module: prune.random_unstructured(module, 'weight', amount=0.5),
              lambda state, layer: state[f'{layer}weight_orig'] * state[f'{layer}weight_mask']),
    'old weight_norm': (nn.utils.weight_norm,
                        lambda state, layer: normalized(state[f'{layer}weight_v'], state[f'{layer}weight_g'])),
    'weight_norm': (parametrizations.weight_norm,
                    lambda state, layer: normalized(*(state[f'{layer}parametrizations.weight.original{i}'] for i in (1, 0)))),
}


@pytest.mark.filterwarnings('ignore:.*weight_norm.*is deprecated')
@pytest.mark.parametrize('alteration', ALTERATIONS)
@each_network
def test_altered_weights_act_after_loading_and_training(name, alteration):
    """Compare with a plain network whose weights are computed from the parameters by hand."""
    plain, x = make(name)
    altered, other = copy.deepcopy(plain), copy.deepcopy(plain)
    alter, weight_of = ALTERATIONS[alteration]
    for network in (altered, other):
        for module in products(network).values():
            alter(module)

    before = output(altered, x).detach()
    for parameter in other.parameters():
        parameter.data.mul_(1.1)
    altered.load_state_dict(other.state_dict())
    state = altered.state_dict()
    for key, value in plain.state_dict().items():
        value.copy_(state[key] if key in state else weight_of(state, key.removesuffix('weight')))
    torch.testing.assert_close(output(altered, x), output(plain, x))
    assert not torch.allclose(output(altered, x), before)
    for _ in range(2):  # a weight computed only once would refer to a freed graph in the second step
        output(altered, x).sum().backward()


@pytest.mark.parametrize('name', [name for name in LAYERS if name not in ('TiedGCB', 'DGConv')])
def test_deployed_layers_keep_their_pruning(name):
    """A computed weight may be out of date before a forward, so that copying it would be wrong."""
    network, x = make(name)
    for module in products(network).values():
        prune.random_unstructured(module, 'weight', amount=0.5)
    for parameter in network.parameters():
        parameter.data.mul_(1.1)
    deployed = deploy(network)  # before a forward
    torch.testing.assert_close(output(deployed, x), output(network, x))


def test_freezing_pruned_groups_is_refused():
    network, _ = make('DGConv')
    prune.random_unstructured(network, 'weight', amount=0.5)
    with pytest.raises(ValueError, match='freeze_groups: the layer is pruned or reparametrized; make its weight permanent first'):
        freeze_groups(network)


@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::FutureWarning')
@pytest.mark.usefixtures('one_process')
@each_network
@needs_fsdp_on_cpu
def test_fsdp_wraps_each_module(name):
    """Wrap each module that has parameters; outputs and an optimizer step equal those of the plain network."""
    plain, x = make(name)

    def holds_parameters(module: nn.Module, recurse: bool, **_: object) -> bool:
        return recurse or bool(list(module.parameters(recurse=False)))

    wrapped = FullyShardedDataParallel(copy.deepcopy(plain), auto_wrap_policy=holds_parameters, device_id=torch.device('cpu'))
    for _ in range(2):
        torch.testing.assert_close(output(wrapped, x), output(plain, x))
        for network in (wrapped, plain):
            optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
            optimizer.zero_grad()
            output(network, x).square().mean().backward()
            optimizer.step()
