"""Write a trained model in another form: a classifier as a detector's backbone, with tied layers, or deployed for inference."""

import io
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmtied.analysis.complexity import count_parameters
from mmtied.atomic import atomic_path
from mmtied.backbones.checkpoint import find_misfits
from mmtied.compat import require
from mmtied.layers.blocks import check_positive
from mmtied.related.shared_bases.released import convert_released, is_released
from mmtied.surgery import TiedLayer, deploy, tie
from mmtied.torch_compat import export_onnx, onnx_needs_onnxscript

from .checkpoints import (
    BACKBONE,
    build_model,
    build_trained,
    check_finite,
    check_target,
    of_backbone,
    raise_misfits,
    read_state_dict,
    write_checkpoint,
)

#: File formats of a deployed model.
FORMATS = ('torchscript', 'onnx', 'state')
#: Largest allowed difference of a deployed model's outputs: relative where outputs exceed one, absolute otherwise.
TOLERANCE = 1e-4


class Converted(NamedTuple):
    """The result of `convert_backbone`: tensors kept, names of those dropped, and the config of a released backbone."""

    kept: dict[str, Tensor]
    dropped: list[str]
    backbone: dict | None


def convert_backbone(source: str | os.PathLike, target: str | os.PathLike, keep_head: bool = False) -> Converted:
    """Write the weights of a classifier's backbone, without head, optimizer state and history.

    The new file contains only tensors. Load it with ``init_cfg=dict(type='Pretrained', checkpoint=target)`` of the same backbone
    in a detector, or with ``tools/train.py --backbone-checkpoint``.

    Args:
        source: Checkpoint of a classifier trained with mmpretrain, or one released by the authors of shared filter bases.
        target: File to write; an existing file is replaced.
        keep_head: Write the whole classifier, for ``tools/test.py``.

    Raises:
        ValueError: The source is unreadable, has no backbone, or contains NaN or infinity; or the target is a folder or the
            source.
    """
    check_target(target, source, 'the classifier', 'backbone.pth')
    weights, backbone = read_state_dict(source), None
    if is_released(weights):
        try:
            backbone, weights = convert_released(weights)
        except ValueError as error:
            raise ValueError(f'checkpoint {source}: {error}') from None
        network = MODELS.build(dict(backbone))
        raise_misfits(f'checkpoint {source}', network, weights, find_misfits(network, of_backbone(weights)))
    kept = of_backbone(weights)
    if not kept:
        raise ValueError(f"checkpoint {source}: no weights named {BACKBONE}* (the first is {next(iter(weights))}); expected a "
                         "classifier trained with mmpretrain; a backbone's own weights need no conversion")
    kept = {key: value.clone() for key, value in (weights if keep_head else kept).items()}
    check_finite(kept, f'checkpoint {source}', 'its training diverged, take an earlier checkpoint')
    write_checkpoint({'state_dict': kept}, target)
    return Converted(kept, [key for key in weights if not (keep_head or key.startswith(BACKBONE))], backbone)


def write_tied(cfg: Config, checkpoint: str, target: str | os.PathLike, num_blocks: int = 2,
               layers: Sequence[str] = ('backbone.*', ), error_budget: float | None = None,
               permute: bool = False) -> tuple[list[TiedLayer], bool]:
    """Tie layers of a trained model, and write its weights as a checkpoint.

    The other arguments are those of `mmtied.surgery.tie`. Nothing is written if files or settings do not fit, or if no layer
    can be tied.

    Returns:
        The change of each layer, and True if the config loads the file after setting its backbone's `conv_cfg` to
        `tied_conv_cfg`.
    """
    check_target(target, checkpoint, 'the checkpoint', 'tied.pth')
    tied, changes = tie(build_trained(cfg, checkpoint), num_blocks, layers, error_budget, permute)
    if not changes:
        raise ValueError(f'{target} is not written: no layer can be tied within an error budget of {error_budget}')
    weights = tied.state_dict()
    write_checkpoint({'state_dict': weights,
                      'meta': {'num_blocks': num_blocks, 'tied': [change.name for change in changes]}}, target)
    return changes, _loads(cfg, num_blocks, weights)


def tied_conv_cfg(num_blocks: int) -> dict[str, object]:
    """Return the `conv_cfg` that ties every divisible convolution of a backbone."""
    return {'type': 'TBC', 'num_blocks': num_blocks, 'indivisible': 'untie'}


def _loads(cfg: Config, num_blocks: int, weights: dict[str, Tensor]) -> bool:
    """Return True if a config's model with `tied_conv_cfg` has weights of these names and shapes."""
    cfg = deepcopy(cfg)
    cfg.model.backbone.conv_cfg = tied_conv_cfg(num_blocks)
    try:
        built = build_model(cfg).state_dict()
    except (TypeError, ValueError, AssertionError):  # a backbone without conv_cfg
        return False
    return {key: value.shape for key, value in built.items()} == {key: value.shape for key, value in weights.items()}


class Deployment(NamedTuple):
    """The result of `write_deployed`; counts are before and after.

    Attributes:
        parts: Names of the parts in the file.
        parameters: Numbers of parameters.
        modules: Numbers of modules.
        difference: Largest difference of outputs.
        largest_output: Largest value of the output with that difference.
    """

    parts: list[str]
    parameters: tuple[int, int]
    modules: tuple[int, int]
    difference: float
    largest_output: float


def write_deployed(cfg: Config, checkpoint: str, target: str | os.PathLike, file_format: str = 'torchscript',
                   shape: Sequence[int] = (224, 224), batch: int = 1, backbone_only: bool = False,
                   dynamic_size: bool = False) -> Deployment:
    """Deploy a classifier, or a detector's backbone and neck, compare outputs, and write the file.

    Args:
        cfg: A config with a model of mmdet or mmpretrain.
        checkpoint: Checkpoint of the trained model.
        target: File to write; an existing file is replaced.
        file_format: One of `FORMATS`; 'state' is the state_dict of the deployed parts.
        shape: Height and width of the images used for tracing and checking.
        batch: Number of these images. The file accepts any number; the check also runs one more.
        backbone_only: Leave out the neck and a classifier's head.
        dynamic_size: Let an ONNX file accept images of any size, and check a second size. Other formats always accept any size.

    Raises:
        ValueError: Files or settings do not fit, or outputs differ by more than `TOLERANCE`; nothing is written.
    """
    check_positive('deploy', batch=batch, height=shape[0], width=shape[1])
    if file_format not in FORMATS:
        raise ValueError(f'deploy: format {file_format!r}, expected one of {", ".join(FORMATS)}')
    if Path(target).suffix.lower() == '.onnx' and file_format != 'onnx':
        raise ValueError(f'deploy: {target} with format {file_format!r}; use format onnx, or another file name')
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
        if not difference <= TOLERANCE * max(1., largest):  # also if the difference is NaN
            raise ValueError(f'{target} is not written: outputs differ by up to {difference:.2g} (outputs up to {largest:.3g}), '
                             f'expected a relative difference of at most {TOLERANCE:g}; are these trained weights?')
    return Deployment(part_names, (count_parameters(parts), count_parameters(deployed)),
                      (len(list(parts.modules())), len(list(deployed.modules()))), difference, largest)


def runnable_parts(model: nn.Module, classifier: bool, backbone_only: bool = False) -> nn.Sequential:
    """Return the parts of a model that map images to features, or to scores for a classifier."""
    names = ('backbone', ) if backbone_only else ('backbone', 'neck', 'head') if classifier else ('backbone', 'neck')
    parts = OrderedDict((name, getattr(model, name)) for name in names if isinstance(getattr(model, name, None), nn.Module))
    if 'backbone' not in parts:
        raise ValueError(f'{type(model).__name__} has no backbone; expected a detector of mmdet or a classifier of mmpretrain')
    return nn.Sequential(parts)


def _write_torchscript(model: nn.Module, image: Tensor, path: Path) -> Callable[[Tensor], object]:
    packed = io.BytesIO()  # torch's file writer kills the process on a full disk
    torch.jit.save(torch.jit.trace(model, image, check_trace=False), packed)
    path.write_bytes(packed.getbuffer())
    return torch.jit.load(str(path))


def _write_onnx(model: nn.Module, image: Tensor, path: Path, names: list[str], dynamic_size: bool) -> Callable[[Tensor], object]:
    image = image if len(image) > 1 else image.repeat(2, 1, 1, 1)  # torch would specialize for a batch of one
    export_onnx(model, image, path, names, dynamic_size)
    import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda images: [torch.from_numpy(level) for level in session.run(None, {'image': images.numpy()})]


def _flatten(outputs: object) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [tensor for output in outputs for tensor in _flatten(output)]


def _compare(got: list[Tensor], expected: list[Tensor]) -> tuple[float, float]:
    """Return the largest difference and value of the output with the largest relative difference; NaN takes precedence."""
    pairs = [(float((mine - theirs).abs().max()), float(theirs.abs().max())) for mine, theirs in zip(got, expected, strict=True)]
    return next((pair for pair in pairs if pair[0] != pair[0]), max(pairs, key=lambda pair: pair[0] / max(1., pair[1])))
