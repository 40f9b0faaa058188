"""A detector's backbone counted from its config, and its AP read from its report: a point of Figure 6."""

import os
from pathlib import Path

from mmengine.registry import MODELS, DefaultScope

from mmtied.analysis.accuracy_over_size import Point
from mmtied.analysis.complexity import count_parameters
from mmtied.evaluation.reporting.files import read_report

from .config import load_config

#: Names of mmdet's classes that Figure 6 has a plot of.
_DETECTORS = {'RetinaNet': 'RetinaNet', 'MaskRCNN': 'Mask R-CNN', 'CascadeRCNN': 'Cascade R-CNN'}
_CLASSES = 1000


def run_point(config: str, report: str | os.PathLike) -> Point:
    """Return a detector of one's own as a point.

    Args:
        config: Its config; the backbone is counted with an ImageNet classifier, as the paper counts.
        report: Its report.json, or the folder that holds it.

    Raises:
        ValueError: The config is of another detector, or the report is not usable.
    """
    cfg = load_config(config)
    has_masks = bool((cfg.model.get('roi_head') or {}).get('mask_head'))
    detector = _DETECTORS.get(cfg.model.type.rpartition('.')[2])
    if detector is None or (detector == 'Cascade R-CNN' and has_masks):
        raise ValueError(f'{config}: {"Cascade Mask R-CNN" if detector else cfg.model.type} has no plot in Figure 6; expected '
                         f'{", ".join(_DETECTORS.values())}')
    path = Path(report)
    content = read_report(path / 'report.json' if path.is_dir() else path)
    values = {iou_type: (content.get(iou_type) or {}).get('all', {}).get('AP') for iou_type in ('bbox', 'segm')}
    if values['bbox'] is None:
        raise ValueError(f'{report}: no AP of boxes')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        backbone = MODELS.build(cfg.model.backbone)
    neck = cfg.model.neck[0] if isinstance(cfg.model.neck, list) else cfg.model.neck
    params = count_parameters(backbone) + (neck.in_channels[-1] + 1) * _CLASSES
    name = content.get('name') or Path(config.rpartition('::')[2]).stem
    return Point(detector, name, params / 1e6, *(None if value is None else 100 * value for value in values.values()))
