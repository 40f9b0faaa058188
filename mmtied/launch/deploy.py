"""Write the deployed form of a classifier, or of a detector's backbone and neck, to a file."""

import io
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmtied.analysis.complexity import count_parameters
from mmtied.atomic import atomic_path
from mmtied.compat import require
from mmtied.layers.blocks import check_positive
from mmtied.surgery import deploy
from mmtied.torch_compat import export_onnx, onnx_needs_onnxscript

from .checkpoints import build_trained, check_target, write_checkpoint

FORMATS = ('torchscript', 'onnx', 'state')
#: Largest allowed difference of outputs, relative to the largest output where that is above one.
TOLERANCE = 1e-4


class Deployment(NamedTuple):
    """Names of the parts in the file, counts before and after, and the largest difference, beside its level's largest output."""

    parts: list[str]
    parameters: tuple[int, int]
    modules: tuple[int, int]
    difference: float
    largest_output: float


def write_deployed(cfg: Config, checkpoint: str, target: str | os.PathLike, file_format: str = 'torchscript',
                   shape: Sequence[int] = (224, 224), batch: int = 1, backbone_only: bool = False,
                   dynamic_size: bool = False) -> Deployment:
    """Build a model, deploy its parts that run on images alone, compare outputs, and write the file.

    Args:
        cfg: A config with a model of mmdet or mmpretrain.
        checkpoint: Checkpoint of the trained model.
        target: File to write; an existing one is replaced.
        file_format: One of `FORMATS`; 'state' is the state_dict of the deployed parts.
        shape: Height and width of the images that the file is made and checked with.
        batch: Number of these images. The file accepts any number, and is checked with one more too.
        backbone_only: Leave out the neck and a classifier's head.
        dynamic_size: Let an ONNX file accept images of any size, and check it with another one. The other formats always do.

    Raises:
        ValueError: Files or settings do not fit, or outputs differ by more than `TOLERANCE`; nothing is written.
    """
    check_positive('deploy', batch=batch, height=shape[0], width=shape[1])
    if file_format not in FORMATS:
        raise ValueError(f'deploy: format {file_format!r}, expected one of {", ".join(FORMATS)}')
    check_target(target, checkpoint, 'the checkpoint', 'deployed.pt')
    if file_format == 'onnx':
        packages = ['onnxscript', 'onnxruntime'] if onnx_needs_onnxscript() else ['onnxruntime']
        require(packages, '--format onnx, which writes a file and runs it once,')
    parts = runnable_parts(build_trained(cfg, checkpoint), cfg.get('default_scope') == 'mmpretrain', backbone_only).eval()
    channels = cfg.model.backbone.get('in_channels', 3)
    image = torch.randn(batch, channels, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), atomic_path(target) as temporary:
        expected = _flatten(parts(image))
        deployed, part_names = deploy(parts), list(dict(parts.named_children()))
        if file_format == 'torchscript':
            run = _write_torchscript(deployed, image, temporary)
        elif file_format == 'onnx':
            last = part_names[-1]
            names = ['scores'] if last == 'head' else [f'{last}_{level}' for level in range(len(expected))]
            run = _write_onnx(deployed, image, temporary, names, dynamic_size)
        else:
            write_checkpoint({'state_dict': deployed.state_dict()}, temporary)
            run = deployed
        other = torch.cat([image, image[:1]])
        if dynamic_size:
            other = torch.cat([other, other.flip(3)], dim=3)
        difference, largest = _compare(_flatten([run(image), run(other)]), [*expected, *_flatten(parts(other))])
        if not difference <= TOLERANCE * max(1., largest):  # also where the difference is NaN
            raise ValueError(f'{target} is not written: outputs differ by up to {difference:.2g} at values up to {largest:.3g}, '
                             f'expected at most {TOLERANCE:g} of them; are the weights of a trained model?')
    return Deployment(part_names, (count_parameters(parts), count_parameters(deployed)),
                      (len(list(parts.modules())), len(list(deployed.modules()))), difference, largest)


def runnable_parts(model: nn.Module, classifier: bool, backbone_only: bool = False) -> nn.Sequential:
    """Return the parts of a model that turn images into features, or into scores for a classifier."""
    names = ('backbone', ) if backbone_only else ('backbone', 'neck', 'head') if classifier else ('backbone', 'neck')
    parts = OrderedDict((name, getattr(model, name)) for name in names if isinstance(getattr(model, name, None), nn.Module))
    if 'backbone' not in parts:
        raise ValueError(f'{type(model).__name__} has no backbone; expected a detector of mmdet or a classifier of mmpretrain')
    return nn.Sequential(parts)


def _write_torchscript(model: nn.Module, image: Tensor, path: Path) -> Callable[[Tensor], object]:
    packed = io.BytesIO()  # as torch's own writer of files ends the process where the disk is full
    torch.jit.save(torch.jit.trace(model, image, check_trace=False), packed)
    path.write_bytes(packed.getbuffer())
    return torch.jit.load(str(path))


def _write_onnx(model: nn.Module, image: Tensor, path: Path, names: list[str], dynamic_size: bool) -> Callable[[Tensor], object]:
    image = image if len(image) > 1 else image.repeat(2, 1, 1, 1)  # torch would specialise a batch of one
    export_onnx(model, image, path, names, dynamic_size)
    import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda images: [torch.from_numpy(level) for level in session.run(None, {'image': images.numpy()})]


def _flatten(outputs: object) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [tensor for output in outputs for tensor in _flatten(output)]


def _compare(got: list[Tensor], expected: list[Tensor]) -> tuple[float, float]:
    """Return the largest difference and largest value of the output with the largest relative difference, or a NaN."""
    pairs = [(float((mine - theirs).abs().max()), float(theirs.abs().max())) for mine, theirs in zip(got, expected, strict=True)]
    return next((pair for pair in pairs if pair[0] != pair[0]), max(pairs, key=lambda pair: pair[0] / max(1., pair[1])))
