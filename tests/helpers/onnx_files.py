"""ONNX files of a network, written by either exporter of torch and run by onnxruntime."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from .torch_versions import HAS_DYNAMO_EXPORTER, needs_dynamo_exporter

EXPORTERS = ['torchscript', pytest.param('dynamo', marks=needs_dynamo_exporter)]


def export_onnx(model: nn.Module, example: Tensor, path: Path, exporter: str = 'torchscript') -> None:
    """Write an ONNX file with one input 'image' of any batch size, or fail with the release of torch that cannot."""
    if exporter == 'dynamo':
        settings = {'dynamo': True, 'verbose': False, 'dynamic_shapes': ({0: torch.export.Dim.DYNAMIC}, )}
    else:
        settings = {'dynamic_axes': {'image': {0: 'batch'}}, 'output_names': ['level']}
        settings |= {'dynamo': False} if HAS_DYNAMO_EXPORTER else {}
    try:
        with torch.no_grad():
            torch.onnx.export(model, (example, ), str(path), input_names=['image'], **settings)
    except Exception as error:
        pytest.fail(f'torch {torch.__version__} with its {exporter} exporter cannot export {type(model).__name__}: {error}')


def run_onnx(path: Path, image: Tensor) -> list[Tensor]:
    """Return the outputs of an ONNX file on the CPU."""
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return [torch.from_numpy(output) for output in session.run(None, {'image': image.numpy()})]
