"""A tiny data set, and tools run as a user runs them but in this process."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from mmengine.visualization import Visualizer

ROOT = Path(__file__).parents[2]

#: Everything that makes the demo's config finish in seconds: 64 pixels, 8 images, one epoch.
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
    """--cfg-options that point the demo's config at the tiny data set."""
    roots = [f'{split}_dataloader.dataset.data_root={shapes}' for split in ('train', 'val', 'test')]
    files = [f'{split}_evaluator.ann_file={shapes}/annotations/instances_val2017.json' for split in ('val', 'test')]
    return ['--cfg-options', *TINY, *roots, *files]


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Run a tool with arguments in the repository's root; return exit code, stdout and stderr."""

    def run(tool: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        code = 0
        capfd.readouterr()
        MMLogger._instance_dict.clear()  # loggers of the run before write to a stream that is closed by now
        Visualizer._instance_dict.clear()  # hooks take the one made last, which another test's may be
        try:
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capfd.readouterr()

    return run
