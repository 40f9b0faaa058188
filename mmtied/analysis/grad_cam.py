"""Grad-CAM of classifiers and detectors (Selvaraju et al., ICCV 2017), using the library grad-cam.

The map of a class is the positive part of a weighted sum of a layer's output channels; the weights are the mean gradients of the
class's score. A classifier's score is the logit of the class, a detector's that of the best detection that matches a given box.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.ops import box_iou

#: Lowest IoU at which a detection matches a box.
MIN_IOU = .5
#: Margin to scores of 0 and 1, where logits are infinite.
_MARGIN = 1e-6


class NotFoundError(ValueError):
    """Raised if no detection matches the given box."""


def class_target(label: int) -> Callable[[Tensor], Tensor]:
    """Return a target for `grad_cam`: the logit of a class. It raises a ValueError if the model has fewer classes."""
    def target(logits: Tensor) -> Tensor:
        if not 0 <= label < len(logits):
            raise ValueError(f'Grad-CAM: label {label} of a model with {len(logits)} classes, expected 0 to {len(logits) - 1}')
        return logits[label]

    return target


def instance_target(box_xyxy: Sequence[float], label: int) -> Callable[[Any], Tensor]:
    """Return a target for `grad_cam`: the logit of the score of a class's best detection on a box.

    The logit's gradient has the score's direction, but does not vanish near scores of 0 and 1.
    """
    def target(instances: Any) -> Tensor:
        return torch.logit(instances.scores[find_instance(instances, box_xyxy, label)], eps=_MARGIN)

    return target


def find_instance(instances: Any, box_xyxy: Sequence[float], label: int) -> int:
    """Return the index of the highest-scoring detection of a class whose IoU with a box reaches `MIN_IOU`.

    The detections are mmdet's ``pred_instances``.

    Raises:
        NotFoundError: No detection matches.
    """
    boxes = instances.bboxes.detach()
    fits = box_iou(boxes, boxes.new_tensor([list(box_xyxy)]))[:, 0] >= MIN_IOU
    scores = instances.scores.detach().masked_fill(~(fits & (instances.labels == label)), -1)
    if not len(scores) or scores.max() < 0:
        raise NotFoundError('no detection of the class matches the box')
    return int(scores.argmax())


def grad_cam(model: nn.Module, run: Callable[[Tensor], Any], inputs: Tensor, target: Callable[[Any], Tensor],
             layers: Sequence[nn.Module] | None = None) -> np.ndarray:
    """Return the Grad-CAM of a score, shape (H, W) float32 from 0 to 1.

    Args:
        model: A model in evaluation mode.
        run: Runs the model on the inputs, and returns the argument of `target`.
        inputs: One image, shape (1, 3, H, W).
        target: Returns the score, or raises a NotFoundError.
        layers: Layers whose maps are averaged. Default: the last output of ``model.backbone``.

    Raises:
        ValueError: A layer runs more than once for an image, does not return feature maps (N, C, H, W), or does not affect the
            score.
    """
    from pytorch_grad_cam import GradCAM

    scored = []

    def keep(found: Any) -> Tensor:
        scored.append(target(found))
        return scored[0]

    with _watched(model, layers) as watched, torch.enable_grad():
        cam = GradCAM(_Runner(model, run), watched)
        try:
            inputs = inputs.detach().requires_grad_(True)  # so that layers after frozen ones have gradients
            result = cam(inputs, [keep])[0]
        except (TypeError, AttributeError, ValueError) as error:  # raised by the library if a gradient is missing
            if scored and len(cam.activations_and_grads.gradients) < len(watched):
                raise ValueError('Grad-CAM: the score does not depend on the output of every layer; choose another layer'
                                 ) from error
            raise
        finally:
            cam.activations_and_grads.release()
            model.zero_grad()
    return result


class _Undetached(TorchFunctionMode):
    """Ignore calls to detach, which mmdet's dense heads make before they select detections."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        return args[0] if func is Tensor.detach else func(*args, **(kwargs or {}))


class _Runner(nn.Module):
    """A model whose forward takes an image and returns its result in a list, as the library expects."""

    def __init__(self, model: nn.Module, run: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, inputs: Tensor) -> list:
        with _Undetached():
            return [self.run(inputs)]


@contextmanager
def _watched(model: nn.Module, layers: Sequence[nn.Module] | None) -> Iterator[list[nn.Module]]:
    """Route each layer's output through a new module within the block, and yield these modules."""
    names = {module: name for name, module in model.named_modules()}
    ran, hooks = set(), ExitStack()

    def watch(layer: nn.Module) -> nn.Module:
        passed = nn.Identity()

        def pass_output(_: nn.Module, __: object, output: Any) -> Any:
            last_of_backbone = layers is None and not isinstance(output, Tensor)
            maps = output[-1] if last_of_backbone else output
            name = names.get(layer, type(layer).__name__)
            if layer in ran:
                raise ValueError(f'Grad-CAM: layer {name} runs more than once for an image; choose one that runs once, such as '
                                 "a backbone's stage")
            ran.add(layer)
            if not isinstance(maps, Tensor) or maps.dim() != 4 or len(maps) != 1:
                got = f'shape {tuple(maps.shape)}' if isinstance(maps, Tensor) else type(maps).__name__
                raise ValueError(f'Grad-CAM: layer {name} returns {got}, expected feature maps (1, C, H, W); choose another one')
            copied = passed(maps).clone()  # later layers may modify it in place
            return type(output)((*output[:-1], copied)) if last_of_backbone else copied

        hooks.enter_context(layer.register_forward_hook(pass_output))
        return passed

    with hooks:
        yield [watch(layer) for layer in dict.fromkeys([model.backbone] if layers is None else layers)]
