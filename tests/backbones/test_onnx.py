"""Every backbone as an ONNX file: onnxruntime gives what PyTorch gives."""

import pytest
import torch
from torch import nn

import mmtied.backbones as backbones

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

# The structure of each family with few channels.
FAMILIES = {
    'TiedResNet': {'base_channels': 8, 'base_width': 32, 'split_blocks': (1, 2, 2, 4)},
    'TiedSENet': {'base_channels': 8, 'base_width': 32, 'split_blocks': (1, 2, 2, 4)},
    'TiedSEResNet': {'base_channels': 8},
    'TiedResNeXt': {'base_channels': 16, 'split_groups': 4, 'split_blocks': (1, 2, 2, 4)},
    'TiedResNeSt': {'base_channels': 8},
    'GResNeXt': {'base_channels': 8},
    'tied_efficientnet': {'out_indices': (2, 4, 6)},
}


def calibrated(family: str) -> nn.Module:
    """A backbone with the statistics of some images in its normalisations and quiet residuals, as training leaves them.

    So every output is of the size of one, and rounding stays far below the tolerance. With the residuals of a random network
    PyTorch itself is more than 1e-3 from its own result in double precision.
    """
    if family == 'tied_efficientnet':
        pytest.importorskip('mmpretrain')
    model = getattr(backbones, family)(**FAMILIES[family])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if hasattr(module, 'last_norm'):
            nn.init.constant_(module.last_norm.weight, 0.2)
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, 64, 64))
    model.train(False)
    return model


# What each exporter is asked for, and the batch to run. torch's default exporter leaves the batch open (and height and width, in
# twice the time); the older one, which fixes some sizes that it saw, exports for them alone.
EXPORTERS = {
    'dynamo': ({'dynamo': True, 'verbose': False, 'dynamic_shapes': ({0: torch.export.Dim.DYNAMIC}, )}, 3),
    'torchscript': ({'dynamo': False}, 2),
}


def export(model: nn.Module, path: str, exporter: str) -> None:
    """Write an ONNX file, or fail with the release of torch that cannot."""
    try:
        torch.onnx.export(model, (torch.randn(2, 3, 64, 64), ), path, input_names=['image'], **EXPORTERS[exporter][0])
    except Exception as error:
        pytest.fail(f'torch {torch.__version__} with its {exporter} exporter cannot export {type(model).__name__}: {error}')


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('exporter', EXPORTERS)
@pytest.mark.parametrize('family', FAMILIES)
def test_onnxruntime_gives_the_same_outputs(family, exporter, tmp_path):
    model = calibrated(family)
    path = str(tmp_path / 'backbone.onnx')
    export(model, path, exporter)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    image = torch.randn(EXPORTERS[exporter][1], 3, 64, 64)
    with torch.no_grad():
        expected = model(image)
    for level, theirs in zip(session.run(None, {'image': image.numpy()}), expected, strict=True):
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(torch.from_numpy(level), theirs, atol=1e-4, rtol=1e-4,
                                   msg=lambda text: f'torch {torch.__version__}, {exporter} exporter: {text}')
