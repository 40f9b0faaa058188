"""Every backbone exported to ONNX: onnxruntime returns the same outputs as PyTorch."""

import pytest
import torch
from torch import nn

from tests.helpers.families import FAMILIES, build_short
from tests.helpers.onnx_files import EXPORTERS, export_onnx, run_onnx
from tests.helpers.torch_versions import HAS_INTEGER_AND_IN_ONNX

# Each family with few channels and blocks, further settings of a block, and one network of full width.
THIN = FAMILIES['TiedResNet']
PLUGINS = [{'cfg': {'type': 'TiedSE', 'num_blocks': 4, 'ratio': 2}, 'position': 'after_conv1'},
           {'cfg': {'type': 'TiedGCB', 'num_blocks': 2}, 'position': 'after_conv3'}]
NETWORKS = {
    **{family: (family, settings) for family, settings in FAMILIES.items()},
    'TiedEfficientNet': ('tied_efficientnet', {'out_indices': (2, 4, 6)}),
    'concat, deep stem': ('TiedResNet', {**THIN, 'mixer_fusion': 'concat', 'deep_stem': True, 'avg_down': True}),
    'no mixer': ('TiedResNet', {**THIN, 'mixer_fusion': 'none'}),
    'plugins': ('TiedResNet', {**THIN, 'plugins': PLUGINS}),
    'TiedResNet-50-S': ('TiedResNet', {'base_width': 18}),
    'SharedResNet': ('SharedResNet', {'base_channels': 8, 'num_bases': 2}),
    'SharedResNetCIFAR': ('SharedResNetCIFAR', {'depth': 20, 'num_bases': 2, 'shared_elements': 16}),
    'SharedMobileNetV2': ('shared_mobilenet_v2', {'widen_factor': 0.25, 'num_bases': 2, 'out_indices': (1, 3, 6)}),
    'IGCNet': ('IGCNet', {'base_channels': 16}),
    'IGCNetCIFAR': ('IGCNetCIFAR', {'depth': 14}),
    'GResNeXt': ('GResNeXt', {'base_channels': 8}),
}

#: Networks skipped with torch's default exporter, which takes seconds: others above cover their operators.
AS_OTHERS = ('no mixer', 'TiedResNet-50-S', 'TiedSEResNet', 'SharedResNet', 'IGCNet')

# torch's default exporter fixes a batch of one in mmcv's ContextBlock, so the example has two images.
FIX_ONE = ('plugins', )


def calibrated(network: str) -> nn.Module:
    """Build a backbone with running statistics and small residuals, as after training.

    Every output is then of order one, and rounding errors stay far below the tolerance. With the residuals of a random network,
    PyTorch itself differs from its own result in double precision by more than 1e-3.
    """
    builder, settings = NETWORKS[network]
    model = build_short(builder, **settings)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if hasattr(module, 'last_norm'):
            nn.init.constant_(module.last_norm.weight, 0.2)
        elif getattr(module, 'with_res_shortcut', False):  # mmpretrain's inverted residuals
            nn.init.constant_(module.linear_conv.norm.weight, 0.2)
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, 64, 64))
    model.train(False)
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('network', 'exporter'), [
    *((network, EXPORTERS[0]) for network in NETWORKS), *(pytest.param(network, *EXPORTERS[1].values, marks=EXPORTERS[1].marks)
                                                          for network in NETWORKS if network not in AS_OTHERS)])
def test_onnxruntime_matches_for_another_batch(network, exporter, tmp_path):
    if network == 'GResNeXt' and not HAS_INTEGER_AND_IN_ONNX:
        pytest.skip(f'torch {torch.__version__} < 2.3: & of integers in ONNX')
    model = calibrated(network)
    export_onnx(model, torch.randn(2 if network in FIX_ONE else 1, 3, 64, 64), tmp_path / 'backbone.onnx', exporter)
    image = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = model(image)
    for level, theirs in zip(run_onnx(tmp_path / 'backbone.onnx', image), expected, strict=True):
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(level, theirs, atol=1e-4, rtol=1e-4,
                                   msg=lambda text: f'torch {torch.__version__}, {exporter} exporter: {text}')
