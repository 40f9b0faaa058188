"""Grad-CAM of classifiers and detectors (Selvaraju et al., ICCV 2017), by the library grad-cam.

The map of a class weights each channel of a layer's output by the mean gradient of the class's score, sums, and keeps what is
positive. A classifier's score is the logit of the class; a detector's is that of the detection that fits a chosen box.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.ops import box_iou

#: A detection fits a box from this IoU on.
MIN_IOU = .5
#: Scores are kept this far from 0 and 1, where their logits are infinite.
_MARGIN = 1e-6


class NotFoundError(ValueError):
    """Raised where no detection fits the chosen box."""


def class_target(label: int) -> Callable[[Tensor], Tensor]:
    """Return a target for `grad_cam`: the logit of a class."""
    return lambda logits: logits[label]


def instance_target(box_xyxy: Sequence[float], label: int) -> Callable[[Any], Tensor]:
    """Return a target for `grad_cam`: the logit of the score of the best detection of a class on a box.

    The logit has the gradient's direction and does not vanish where scores are near 0 or 1.

    Args:
        box_xyxy: In pixels of the image.
        label: Label of the class.
    """
    def target(instances: Any) -> Tensor:
        return torch.logit(instances.scores[find_instance(instances, box_xyxy, label)], eps=_MARGIN)

    return target


def find_instance(instances: Any, box_xyxy: Sequence[float], label: int) -> int:
    """Return the index of the highest score among detections of a class whose IoU with a box is at least `MIN_IOU`.

    Args:
        instances: mmdet's ``pred_instances``: ``bboxes`` xyxy, ``labels`` and ``scores``.
        box_xyxy: The box.
        label: Label of the class.

    Raises:
        NotFoundError: There is none.
    """
    boxes = instances.bboxes.detach()
    fits = box_iou(boxes, boxes.new_tensor([list(box_xyxy)]))[:, 0] >= MIN_IOU
    scores = instances.scores.detach().masked_fill(~(fits & (instances.labels == label)), -1)
    if not len(scores) or scores.max() < 0:
        raise NotFoundError('no detection of the class fits the box')
    return int(scores.argmax())


def grad_cam(model: nn.Module, run: Callable[[Tensor], Any], inputs: Tensor, target: Callable[[Any], Tensor],
             layers: Sequence[nn.Module] | None = None) -> np.ndarray:
    """Return where a model looks for a score.

    Args:
        model: A model in evaluation mode.
        run: Runs it on the inputs, and returns what `target` takes.
        inputs: One image, shape (1, 3, H, W).
        target: Returns the score.
        layers: Layers whose maps are averaged, by default the last output of ``model.backbone``.

    Returns:
        Shape (H, W) float32 from 0 to 1.

    Raises:
        NotFoundError: There is no score.
        ValueError: The score does not depend on a layer, or a layer does not return feature maps (N, C, H, W).
    """
    from pytorch_grad_cam import GradCAM

    runner = _Runner(model, run)
    with _backbone_output(model, layers) as chosen, torch.enable_grad():
        cam = GradCAM(runner, chosen)
        try:
            inputs = inputs.detach().requires_grad_(True)  # so that layers behind frozen ones have gradients
            result = cam(inputs, [target])[0]
        except (TypeError, AttributeError, IndexError) as error:  # the library's, for outputs that are no tensors
            held = cam.activations_and_grads
            if len(held.gradients) < len(chosen):
                raise ValueError('Grad-CAM: the score does not depend on the output of every layer, or a layer does not return '
                                 'feature maps (N, C, H, W); choose another layer') from error
            raise
        finally:
            cam.activations_and_grads.release()
            model.zero_grad()
    return result


class _Undetached(TorchFunctionMode):
    """Keep gradients where a model detaches: mmdet's dense heads do so before they choose detections."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        return args[0] if func is Tensor.detach else func(*args, **(kwargs or {}))


class _Runner(nn.Module):
    """A model whose forward takes an image and returns a list with what was found in it, as the library expects."""

    def __init__(self, model: nn.Module, run: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, inputs: Tensor) -> list:
        with _Undetached():
            return [self.run(inputs)]


@contextmanager
def _backbone_output(model: nn.Module, layers: Sequence[nn.Module] | None) -> Iterator[list[nn.Module]]:
    """Yield the layers, or a new one that the last output of the backbone passes in the block."""
    if layers is not None:
        yield list(layers)
        return
    last = nn.Identity()

    def pass_last(_: nn.Module, __: object, outputs: Any) -> Any:
        return last(outputs) if isinstance(outputs, Tensor) else type(outputs)((*outputs[:-1], last(outputs[-1])))

    hook = model.backbone.register_forward_hook(pass_last)
    try:
        yield [last]
    finally:
        hook.remove()
