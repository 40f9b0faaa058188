"""Check the counters against arithmetic and against each other."""

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.registry import MODELS
from torch import nn

from mmtied.analysis.complexity import ImageNetClassifier, count_parameters, measure
from mmtied.analysis.published import load_papers
from mmtied.layers import TBC, TFC, TGC, tied_conv_algorithm


@pytest.mark.parametrize(('layer', 'parameters', 'multiply_adds'), [
    (nn.Conv2d(3, 8, 3, stride=2, padding=1), 3 * 8 * 9 + 8, 3 * 8 * 9 * 8 * 8),
    (TBC(3, 12, 3, padding=1, num_blocks=3), 1 * 4 * 9 + 4, 3 * (1 * 4 * 9) * 16 * 16),
    (nn.Sequential(nn.Conv2d(3, 8, 1), TGC(8, 16, 3, groups=2, num_blocks=2)), 32 + 2 * 9 * 4 * 2 + 8,
     (3 * 8) * 16 * 16 + 4 * (2 * 4 * 9) * 14 * 14),
    (nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), TFC(12, 6, num_blocks=2)), 3 * 6 + 3, 2 * 3 * 6),
    (nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()), 12 + 8, 12 * 16 * 16),
], ids=['conv', 'TBC', 'TGC', 'TFC', 'normalization is not counted'])
def test_counts_match_arithmetic(layer, parameters, multiply_adds):
    assert measure(layer, size=16) == (parameters, multiply_adds)


def test_shared_parameters_count_once():
    layer = nn.Conv2d(3, 3, 1, bias=False)
    model = nn.Sequential(layer, layer)
    assert count_parameters(model) == 9
    assert measure(model, size=4).multiply_adds == 2 * 9 * 16


def test_classifier_and_mode():
    class Backbone(nn.Sequential):
        def forward(self, x):
            return x, super().forward(x)

    model = ImageNetClassifier(Backbone(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)), channels=5).train()
    assert measure(model, size=8) == (20 + 10 + 6000, 15 * 64 + 5000)
    assert model.training
    assert model(torch.rand(2, 3, 4, 4)).shape == (2, 1000)
    assert int(model.backbone[1].num_batches_tracked) == 1, 'measuring must not train the statistics'


@pytest.mark.parametrize('paper', load_papers(), ids=lambda paper: paper.title)
def test_mmengine_counts_the_same(paper):
    """mmengine counts in the traced graph, independently of torch's counter."""
    row = min(paper.networks, key=lambda row: row.size)
    model = ImageNetClassifier(MODELS.build(dict(row.backbone)), row.channels, row.classes).eval()
    image = torch.zeros(1, 3, row.size, row.size)
    with tied_conv_algorithm('grouped'):
        counts = FlopAnalyzer(model, (image, )).unsupported_ops_warnings(False).tracer_warnings('none').by_operator()
    products = sum(counts[name] for name in ('conv', 'linear', 'addmm', 'matmul', 'bmm', 'baddbmm', 'einsum'))
    assert measure(model, row.size).multiply_adds == products
