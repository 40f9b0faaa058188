"""Detection accuracy as a function of occlusion: COCO's AP for buckets of images or instances by occlusion ratio.

`evaluate` takes any detector's results. `OcclusionCocoMetric` and `OcclusionEvalHook` plug into mmdet,
`OcclusionMeanAveragePrecision` into any PyTorch evaluation loop. The metric and the hook need mmengine; everything else needs
only torch, NumPy and pycocotools. Names are imported on first use.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    'annotated': ('annotate', ),
    'pipeline': ('compare', 'evaluate', 'evaluate_detections'),
    'result': ('ComparisonResult', 'EvaluationResult'),
    'buckets': ('Bucket', 'Evaluation', 'make_buckets', 'preset'),
    'intervals': ('Bootstrap', ),
    'protocol': ('STATISTICS', 'Statistic', 'register_statistic'),
    'occlusion': ('OCCLUSION_RATIOS', 'image_ratios', 'instance_ratios', 'occlusion_ratio', 'register_occlusion_ratio'),
    'inputs.ground_truth': ('read_ground_truth', ),
    'inputs': ('load_detections', ),
    'records': ('read_records', ),
    'mean_ap': ('OcclusionMeanAveragePrecision', ),
    'metric': ('OcclusionCocoMetric', ),
    'hook': ('OcclusionEvalHook', ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_MODULE_OF[name]}', __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
