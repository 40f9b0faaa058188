"""Options and fixtures that the whole suite shares."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import hypothesis
import pytest
import torch
from mmengine.config import utils as config_utils
from yapf.yapflib import yapf_api

from tests.helpers.figures import blank_figures

# mmengine parses a package's hundred metafiles anew for every config that inherits one of its configs.
config_utils.load = functools.cache(config_utils.load)
# It also formats the text of a config five times for each Runner, which takes a second.
yapf_api.FormatCode = lambda text, **settings: (text, True)

# Examples may be slow on a busy machine.
hypothesis.settings.register_profile('mmtied', deadline=None)
hypothesis.settings.load_profile('mmtied')

# With pytest -n, each worker's threads would fight the others' for the same cores, and small operations suffer most.
if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:
    share = max(1, (os.cpu_count() or 1) // int(os.environ['PYTEST_XDIST_WORKER_COUNT']))
    torch.set_num_threads(int(os.environ.setdefault('OMP_NUM_THREADS', str(share))))  # also for processes that tests start


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='device of the layer tests')


@pytest.fixture(scope='session')
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption('--device'))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def reset_default_scope() -> Iterator[None]:
    """Drop the default scope that a Runner leaves behind, so that tests do not depend on their order."""
    yield
    if 'mmengine.registry' in sys.modules:
        sys.modules['mmengine.registry'].DefaultScope._instance_dict.clear()


@pytest.fixture(name='blank_figures')
def reports_with_blank_figures() -> Iterator[None]:
    with blank_figures():
        yield


def repeating(draw: Callable) -> Callable:
    """Let an in-place draw repeat a hundred thousand values, since two draws for every weight take as long as a step."""

    def fill(tensor: torch.Tensor, *settings: float, generator: torch.Generator | None = None) -> torch.Tensor:
        few = 99991  # a prime, so that no two filters are alike
        if tensor.numel() <= few:
            return draw(tensor, *settings, generator=generator)
        drawn = draw(tensor.new_empty(few), *settings, generator=generator)
        return tensor.copy_(drawn.repeat(-(-tensor.numel() // few))[:tensor.numel()].view(tensor.shape))

    return fill


@pytest.fixture
def quick_init(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw weights quickly, and skip mmengine's record of every initialized parameter, which takes longer than the draws."""
    for name in ('normal_', 'uniform_'):
        monkeypatch.setattr(torch.Tensor, name, repeating(getattr(torch.Tensor, name)))
    monkeypatch.setattr('mmengine.model.weight_init.update_init_info', lambda module, init_info: None)
    monkeypatch.setattr('mmengine.model.BaseModule._dump_init_info', lambda self: None)


@pytest.fixture
def one_process() -> Iterator[None]:
    """Make this process a process group of its own."""
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture
def amp_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mmengine's AmpOptimWrapper, which insists on an accelerator, use torch's autocast and gradient scaler for CPUs."""
    if torch.cuda.is_available():
        pytest.skip('mmengine would train on the GPU')
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('PyTorch before 2.3 scales gradients on GPUs only')
    from mmengine.optim.optimizer import amp_optimizer_wrapper
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', functools.partial(torch.amp.GradScaler, 'cpu'))


_BLOCK_OPENMMLAB = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
importlib.util.find_spec = lambda name, package=None, real=importlib.util.find_spec: (
    None if name in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain') else real(name, package))
"""


@pytest.fixture
def run_without_openmmlab() -> Callable[[str], str]:
    """Run code in a Python where no OpenMMLab package can be imported; return what it printed."""

    def run(code: str) -> str:
        result = subprocess.run([sys.executable, '-c', _BLOCK_OPENMMLAB + code], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
