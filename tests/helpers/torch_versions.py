"""Marks for what older releases of torch cannot do."""

import pytest
import torch

RELEASE = tuple(int(part) for part in torch.__version__.split('.')[:2])

#: Before 2.6, torch.onnx.export has no argument `dynamo`; `mmtied.torch_compat.export_onnx` then exports through TorchScript.
HAS_DYNAMO_EXPORTER = RELEASE >= (2, 6)
needs_dynamo_exporter = pytest.mark.skipif(not HAS_DYNAMO_EXPORTER, reason=f'torch {torch.__version__} < 2.6: dynamo exporter')
needs_inductor = pytest.mark.skipif(RELEASE < (2, 3), reason=f'torch {torch.__version__} < 2.3: inductor')
needs_dynamo = pytest.mark.skipif(RELEASE < (2, 3), reason=f'torch {torch.__version__} < 2.3: dynamo of networks')
needs_fsdp_on_cpu = pytest.mark.skipif(RELEASE < (2, 3), reason=f'torch {torch.__version__} < 2.3: FSDP needs CUDA streams')
#: TorchScript's exporter refuses `&` of integers, by which an undeployed DGConv finds its groups.
HAS_INTEGER_AND_IN_ONNX = RELEASE >= (2, 3)
HAS_CHANNEL_SHUFFLE_GRADIENT = RELEASE >= (2, 3)
#: The stand-in for CUDA tensors (`helpers.pretend`) needs operators that older releases compare by device.
HAS_PRETEND_CUDA = RELEASE >= (2, 3)
HAS_FLOAT16_ON_CPU = RELEASE >= (2, 3)
needs_float16_autocast = pytest.mark.skipif(
    not HAS_FLOAT16_ON_CPU, reason=f'torch {torch.__version__} < 2.3: float16 autocast on CPUs')
