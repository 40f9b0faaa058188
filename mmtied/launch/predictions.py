"""What tools/test.py does with predictions besides evaluating them: draw them, write them, augment for them."""

from copy import deepcopy
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import BaseMetric, DumpResults

from mmtied.compat import require


def draw_predictions(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Switch the config's visualisation hook on.

    Args:
        cfg: A config of mmdet or mmpretrain.
        show: Show images in a window.
        show_dir: Folder below ``work_dir/timestamp`` to write images into, or None.
        wait_time: Seconds that each image stays on the screen.

    Raises:
        ValueError: The config has no visualisation hook.
    """
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError('--show and --show-dir need a visualization hook in default_hooks, for example '
                         "dict(type='DetVisualizationHook')")
    if cfg.get('default_scope') == 'mmpretrain':
        hook.update(enable=True, show=show, wait_time=wait_time, out_dir=show_dir)
    else:
        hook.update(draw=True, show=show, wait_time=wait_time, test_out_dir=show_dir)


def use_tta(cfg: Config) -> None:
    """Test with augmentation: the config's own tta_model and tta_pipeline.

    Raises:
        ValueError: The config has none.
    """
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise ValueError(f'--tta needs {" and ".join(missing)} in the config; mmdet has an example in '
                         'mmdet::retinanet/retinanet_tta.py')
    cfg.model = ConfigDict(deepcopy(cfg.tta_model), module=cfg.model)
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline


def dump_metric(cfg: Config, out: str) -> BaseMetric:
    """The metric that writes predictions to a pickle file.

    Raises:
        ValueError: The file's name does not end in .pkl or .pickle.
    """
    if Path(out).suffix not in ('.pkl', '.pickle'):
        raise ValueError(f'--out {out}: expected a file name that ends in .pkl')
    if cfg.get('default_scope') == 'mmpretrain':
        return DumpResults(out_file_path=out)
    require('mmdet', '--out')
    from mmdet.evaluation import DumpDetResults
    return DumpDetResults(out_file_path=out)
