"""Grad-CAM against a manual computation of its formula, and the targets for detections."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

pytest.importorskip('pytorch_grad_cam')
from mmtied.analysis.grad_cam import NotFoundError, class_target, find_instance, grad_cam, instance_target  # noqa: E402


class Classifier(nn.Module):
    """A backbone with two outputs, as mmpretrain's, and a linear classifier on the last one."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(self.backbone(x)[-1].mean(dim=(2, 3)))


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 5, 3, stride=2, padding=1)

    def forward(self, x):
        first = torch.relu(self.first(x))
        return first, torch.relu(self.second(first))


def by_hand(activation, gradient, size):
    """Equations 1 and 2 of the paper, scaled to [0, 1] and to the image's size."""
    weights = gradient.mean(dim=(1, 2))
    cam = (weights[:, None, None] * activation).sum(dim=0).clamp(min=0)
    large = F.interpolate(cam[None, None], size, mode='bilinear', align_corners=False)[0, 0].detach().numpy()
    return (large - large.min()) / (large - large.min()).max()


def test_map_of_a_class_matches_the_formula():
    model, image = Classifier().eval(), torch.randn(1, 3, 16, 24)
    features = model.backbone(image)
    for label in range(3):
        for module, activation in ((None, features[1]), (model.backbone.second, model.backbone.second(features[0]))):
            output = activation.detach().requires_grad_(True)
            last = output if module is None else torch.relu(output)
            model.fc(last.mean(dim=(2, 3)))[0, label].backward()
            expected = by_hand(output[0], output.grad[0], (16, 24))
            got = grad_cam(model, lambda inputs: model(inputs)[0], image, class_target(label), module and [module])
            assert got.shape == (16, 24)
            np.testing.assert_allclose(got, expected, atol=1e-4)  # the library resizes with OpenCV
            assert got.max() == pytest.approx(1, abs=1e-5)
    assert not model.backbone._forward_hooks and not model.backbone.second._forward_hooks
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name.startswith('backbone'))


def test_frozen_networks_have_maps():
    model, image = Classifier().eval(), torch.randn(1, 3, 16, 16)
    expected = grad_cam(model, lambda inputs: model(inputs)[0], image, class_target(1))
    got = grad_cam(model.requires_grad_(False), lambda inputs: model(inputs)[0], image, class_target(1))
    np.testing.assert_array_equal(got, expected)


def test_layers_without_a_map_are_an_error():
    model, image = Classifier().eval(), torch.randn(1, 3, 16, 16)
    model.unused = nn.Conv2d(3, 7, 1)
    pooled = nn.Flatten()

    def run(inputs):
        model.unused(inputs)
        return model.fc(pooled(model.backbone(inputs)[-1].mean(dim=(2, 3))))[0]
    for layers, message in (([nn.Conv2d(3, 3, 1)], 'the score does not depend on the output of every layer'),
                            ([model.unused, model.backbone.second], 'the score does not depend on the output of every layer'),
                            ([model.backbone], 'layer backbone returns tuple, expected feature maps'),
                            ([model.fc], r'layer fc returns shape \(1, 3\), expected feature maps')):
        with pytest.raises(ValueError, match=f'Grad-CAM: {message}'):
            grad_cam(model, run, image, class_target(0), layers)
        assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_run_for_several_levels_are_an_error():
    """The first level's output would meet the gradient of another."""
    model, image = Classifier().eval(), torch.randn(1, 3, 16, 16)
    model.shared = nn.Conv2d(5, 5, 1)

    def run(inputs):
        last = model.backbone(inputs)[-1]
        levels = [model.shared(last), model.shared(last[..., ::2, ::2])]
        return model.fc(levels[0].mean(dim=(2, 3)))[0]
    with pytest.raises(ValueError, match='Grad-CAM: layer shared runs more than once for an image'):
        grad_cam(model, run, image, class_target(0), [model.shared])


def test_layers_that_run_on_regions_are_an_error():
    model, image = Classifier().eval(), torch.randn(1, 3, 16, 16)
    model.regions = nn.Conv2d(5, 5, 1)

    def run(inputs):
        return model.fc(model.regions(model.backbone(inputs)[-1].repeat(6, 1, 1, 1)).mean(dim=(2, 3)))[0]
    with pytest.raises(ValueError, match=r'layer regions returns shape \(6, 5, 4, 4\), expected feature maps \(1, C, H, W\)'):
        grad_cam(model, run, image, class_target(0), [model.regions])


def test_layers_before_operations_in_place():
    model, image = Classifier().eval(), torch.randn(1, 3, 16, 16)

    def run(inputs, relu):
        return model.fc(relu(model.backbone.second(model.backbone.first(inputs))).mean(dim=(2, 3)))[0]
    maps = [grad_cam(model, lambda inputs, relu=relu: run(inputs, relu), image, class_target(0), [model.backbone.second])
            for relu in (torch.relu, torch.relu_)]
    np.testing.assert_array_equal(*maps)


def test_labels_out_of_range_are_named():
    model = Classifier().eval()
    for label in (3, -1):
        with pytest.raises(ValueError, match=f'Grad-CAM: label {label} of a model with 3 classes, expected 0 to 2'):
            grad_cam(model, lambda inputs: model(inputs)[0], torch.randn(1, 3, 16, 16), class_target(label))


def found(boxes, labels, scores):
    return SimpleNamespace(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.tensor(labels),
                           scores=torch.tensor(scores, requires_grad=True))


def test_target_is_the_best_detection_of_the_class_on_the_box():
    instances = found([[0, 0, 10, 10], [0, 0, 10, 12], [1, 0, 11, 10], [0, 0, 40, 40]], [1, 1, 0, 1], [.3, .6, .9, .95])
    assert find_instance(instances, [0, 0, 10, 10], 1) == 1
    assert find_instance(instances, [0, 0, 10, 10], 0) == 2
    target = instance_target([0, 0, 10, 10], 1)(instances)
    assert target.item() == pytest.approx(np.log(.6 / .4), abs=1e-5)
    target.backward()
    assert instances.scores.grad.nonzero().tolist() == [[1]]
    for other in (instances, found([], [], [])):
        with pytest.raises(NotFoundError):
            find_instance(other, [50, 50, 60, 60], 1)
