"""Every family under torch.jit.trace, torch.compile and autocast."""

import pytest
import torch
from torch import nn

from tests.helpers.families import FAMILIES, build_short
from tests.helpers.torch_versions import needs_dynamo

NETWORKS = [*FAMILIES, 'TiedEfficientNet']
networks = pytest.mark.parametrize('network', NETWORKS)


def make(network: str) -> nn.Module:
    """Build a thin, short network with statistics and small residuals, as after training, so that rounding errors stay small."""
    if network == 'TiedEfficientNet':
        model = build_short('tied_efficientnet', out_indices=(2, 4, 6))
    else:
        model = build_short(network, **FAMILIES[network])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if hasattr(module, 'last_norm'):
            nn.init.constant_(module.last_norm.weight, 0.2)
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))
    return model.eval()


@pytest.mark.slow
@networks
@pytest.mark.filterwarnings('ignore')
@torch.no_grad()
def test_trace_runs_for_other_batches_and_sizes(network):
    """Except other sizes of EfficientNet, from which mmpretrain computes paddings in Python."""
    model = make(network)
    traced = torch.jit.trace(model, torch.randn(1, 3, 64, 64))
    other_size = (2, 3, 64, 64) if network == 'TiedEfficientNet' else (2, 3, 96, 64)
    for shape in ((1, 3, 64, 64), (3, 3, 64, 64), other_size):
        x = torch.randn(shape)
        for mine, other in zip(traced(x), model(x), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@networks
@pytest.mark.filterwarnings('ignore')
@torch.no_grad()
@needs_dynamo
def test_compiles_as_one_graph(network):
    model = make(network)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    for batch in (2, 3):
        x = torch.randn(batch, 3, 64, 64)
        for mine, other in zip(compiled(x), model(x), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


@networks
def test_trains_in_bfloat16(network):
    model = make(network).train()
    x = torch.randn(4, 3, 64, 64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.autocast('cpu', torch.bfloat16):
        levels = model(x)
    assert levels[-1].dtype == torch.bfloat16
    for mine, other in zip(levels, model(x), strict=True):
        assert torch.cosine_similarity(mine.float().flatten(), other.flatten(), dim=0) > 0.98
    sum(level.float().mean() for level in levels).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
