"""Figures 3 and 4 of shared filter bases: recorded gradients against autograd's, similarities against loops, and the tool."""

import copy
import csv

import numpy as np
import pytest
import torch
from torch import nn

from mmtied.backbones import SharedResNet, SharedResNetCIFAR
from mmtied.layers import FilterBasis, SharedBasisConv
from mmtied.related.shared_bases.backbones import SharedStage
from mmtied.related.shared_bases.figures import coefficient_similarity, find_coefficients, mean_similarity, read_gradients
from mmtied.related.shared_bases.released import convert_released
from mmtied.training import BasisGradientHook
from tests.helpers.loss_hooks import DistanceModel, RandomImages, make_runner
from tests.helpers.released_bases import random_weights
from tests.helpers.tools import run_in_process

DATA = RandomImages((4, 5, 5), (4, 5, 5))


class Toy(DistanceModel):
    """Two stages of two layers that share a basis."""

    def __init__(self) -> None:
        super().__init__()
        stages = []
        for _ in range(2):
            basis = FilterBasis(4, 4, 3)
            layers = [SharedBasisConv(4, 4, 3, padding=1, filters=basis) for _ in range(2)]
            stages.append(SharedStage(layers, {'entry': basis}))
        self.layers = nn.Sequential(*stages)


def test_recorded_gradients_are_the_optimizers(tmp_path):
    torch.manual_seed(0)
    model = Toy()
    plain = copy.deepcopy(model)
    runner = make_runner(model, DATA, tmp_path, {'type': 'mmtied.BasisGradientHook', 'interval': 1})
    runner.train()
    records = read_gradients(tmp_path)
    assert list(records) == ['layers.0.bases.entry', 'layers.1.bases.entry']
    batch = next(iter(torch.utils.data.DataLoader(DATA, 2)))
    (plain.layers(batch['inputs']) - batch['target']).square().mean().backward()
    for values, stage in zip(records.values(), plain.layers, strict=True):
        gradient = stage.bases['entry'].weight.grad
        np.testing.assert_allclose(values[0], [0, gradient.abs().mean(), gradient.abs().max(), gradient.norm()], rtol=1e-4)
        assert list(values[:, 0]) == list(range(len(values)))


def test_no_shared_bases():
    class Runner:
        model = nn.Linear(2, 2)

    with pytest.raises(ValueError, match='BasisGradientHook: Linear has no trainable shared bases'):
        BasisGradientHook().before_train(Runner)
    with pytest.raises(ValueError, match='interval=0, expected a positive integer'):
        BasisGradientHook(0)


@pytest.mark.parametrize(('model', 'stage', 'rows'), [
    (SharedResNetCIFAR(20, shared_elements=4), 'layer2', 4 * 32), (SharedResNet(50, base_channels=8), 'layer3', 5 * 128)])
def test_coefficients(model, stage, rows):
    """All coefficients of a stage with a shared basis, in order, and their absolute cosines."""
    weights = {f'backbone.{key}': value for key, value in model.state_dict().items()}
    found = find_coefficients(weights)[stage]
    blocks = getattr(model, stage)[1:]
    layers = [conv for block in blocks for conv in
              ((block.entry.conv.coefficients, block.exit.conv.coefficients) if model.expansion == 1 else (block.exit.conv, ))]
    assert torch.equal(found, torch.cat([layer.weight.flatten(1) for layer in layers]))
    assert len(found) == rows
    similarity = coefficient_similarity(found)
    for i, j in ((0, 1), (3, rows - 1)):
        one, other = found[i], found[j]
        assert similarity[i, j] == pytest.approx(abs((one @ other).item()) / (one.norm() * other.norm()).item(), abs=1e-5)
    others = [similarity[i, j] for i in range(rows) for j in range(rows) if i != j]
    assert mean_similarity(similarity) == pytest.approx(np.mean(others), rel=1e-4)


def test_coefficients_of_two_bases_are_apart():
    """ResNet-34-S48U1's first convolutions combine one basis and its second ones another."""
    model = SharedResNetCIFAR(20, num_bases=2, shared_elements=4)
    found = find_coefficients(model.state_dict())
    assert list(found) == [f'layer{stage} {role}' for stage in (1, 2, 3) for role in ('entry', 'exit')]
    for role in ('entry', 'exit'):
        expected = [getattr(block, role).conv.coefficients.weight.flatten(1) for block in list(model.layer2)[1:]]
        assert torch.equal(found[f'layer2 {role}'], torch.cat(expected))


@pytest.mark.parametrize('released', ['ResNet34_S48U1', 'ResNet50_Shared', 'ResNet50_Shared_two_bases', 'ResNet101_Shared',
                                      'MobileNetV2_Shared', 'MobileNetV2_Shared_two_bases'])
def test_coefficients_of_the_released_networks(released):
    """Rows per stage (outputs of the blocks after the first), or the reason why there are none."""
    weights = convert_released(random_weights(released))[1]
    rows = {'ResNet34_S48U1': {f'layer{i} {role}': 64 * 2**(i - 1) * (blocks - 1) for i, blocks in enumerate((3, 4, 6, 3), 1)
                               for role in ('entry', 'exit')},
            'ResNet50_Shared': {f'layer{i}': 256 * 2**(i - 1) * (blocks - 1) for i, blocks in enumerate((3, 4, 6, 3), 1)},
            'ResNet101_Shared': {f'layer{i}': 256 * 2**(i - 1) * (blocks - 1) for i, blocks in enumerate((3, 4, 23, 3), 1)}}
    if released in rows:
        assert {name: len(matrix) for name, matrix in find_coefficients(weights).items()} == rows[released]
        return
    reason = 'the blocks share the 1x1 convolutions after the basis too' if 'ResNet' in released else 'a depthwise convolution'
    with pytest.raises(ValueError, match=reason):
        find_coefficients(weights)


def test_tool(tmp_path, monkeypatch, capfd):
    """Both figures are written, and mistakes print one line."""
    with (tmp_path / 'basis_gradients.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('iteration', 'basis', 'mean', 'max', 'norm'), (0, 'a', 0.1, 0.5, 1), (10, 'a', 0.2, 0.4, 2)])
    torch.save(SharedResNetCIFAR(20, shared_elements=4).state_dict(), tmp_path / 'net.pth')
    out = tmp_path / 'figure.png'

    def run(*arguments: object) -> tuple[int, str, str]:
        return run_in_process('shared_bases.py', arguments, monkeypatch, capfd)

    for arguments, printed in ((('gradients', tmp_path, '--names', 'run'), 'run a: 2 records, mean 0.15, largest 0.5'),
                               (('coefficients', tmp_path / 'net.pth', '--stages', 2, 3), 'net layer3: 256 coefficients')):
        code, text, err = run(*arguments, '--out', out)
        assert code == 0, err
        assert printed in text
        assert out.stat().st_size > 1000
        out.unlink()
    torch.save(SharedResNetCIFAR(20, num_bases=2, shared_elements=4).state_dict(), tmp_path / 'two.pth')
    code, text, err = run('coefficients', tmp_path / 'two.pth', '--stages', 2, '--out', out)
    assert code == 0, err
    assert [line.partition(':')[0] for line in text.splitlines()[:2]] == ['two layer2 entry', 'two layer2 exit']
    out.unlink()
    torch.save({'stem.conv.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    for arguments, message in (
            (('gradients', tmp_path / 'nothing'), 'no basis_gradients.csv; train with'),
            (('gradients', tmp_path, '--iterations', 20, 30), 'no record from iteration 20 to 30; it has 0 to 10'),
            (('coefficients', tmp_path / 'other.pth'), 'has no coefficients of shared bases'),
            (('coefficients', tmp_path / 'net.pth', '--stages', 4), 'coefficients in layer1, layer2, layer3, not in layer4')):
        code, _, err = run(*arguments, '--out', out)
        assert (code, err.count('\n')) == (2, 1), err
        assert message in err
    assert not out.exists()
