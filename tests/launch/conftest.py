"""A tiny data set, and a runner of tools in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from mmengine.visualization import Visualizer

from tests.helpers.tools import ROOT, run_in_process

#: Options that let the demo's config finish in seconds.
TINY = ['train_dataloader.num_workers=0', 'val_dataloader.num_workers=0', 'test_dataloader.num_workers=0',
        'train_dataloader.batch_size=2', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']


@pytest.fixture(scope='session')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mmtied.datasets import make_occluded_shapes
    folder = tmp_path_factory.mktemp('data') / 'occluded_shapes'
    make_occluded_shapes(folder, num_images=6, num_val_images=4, seed=1, size=64, objects=(2, 3), workers=1)
    return folder


@pytest.fixture
def tiny_options(shapes: Path) -> list[str]:
    """Return the --cfg-options that point the demo config at the tiny data set."""
    roots = [f'{split}_dataloader.dataset.data_root={shapes}' for split in ('train', 'val', 'test')]
    files = [f'{split}_evaluator.ann_file={shapes}/annotations/instances_val2017.json' for split in ('val', 'test')]
    return ['--cfg-options', *TINY, *roots, *files]


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture,
             blank_figures: None) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a tool in the root of the repository and returns exit code, stdout and stderr."""

    def run(tool: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(ROOT)
        MMLogger._instance_dict.clear()  # loggers of the last run write to a closed stream
        Visualizer._instance_dict.clear()  # hooks would take another test's
        return run_in_process(tool, arguments, monkeypatch, capfd)

    return run
