"""The numbers of a report that loggers and `save_best` see, under the names that mmdet's CocoMetric gives them."""

from collections.abc import Sequence

from ..evaluations import Evaluation
from ..protocol import STATISTICS

#: CocoMetric's names of `STATISTICS`.
COCO_METRIC_NAMES = dict(zip(STATISTICS, ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l'), strict=True))
#: What is reported of each bucket as scalars; the report has everything.
_BUCKET_SCALARS = ('AP', 'AP75')


def scalars(report: dict, iou_types: Sequence[str], evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """The report's numbers under CocoMetric's names, overall -1 where undefined, by bucket only where defined.

    Further evaluations have those of their buckets, each name after the evaluation's slug; a slug that was used before gets a
    number.
    """
    values, slugs = {}, []
    for part, evaluation in zip([report, *report['further']], evaluations, strict=True):
        slugs.append(evaluation.slug)
        times = slugs.count(evaluation.slug)
        prefix = '' if part is report else evaluation.slug + (f'_{times}_' if times > 1 else '_')
        for iou_type in iou_types:
            if part is report:
                for name, coco_name in COCO_METRIC_NAMES.items():
                    value = part[iou_type]['all'][name]
                    values[f'{iou_type}_{coco_name}'] = -1. if value is None else value
            for bucket, row in zip(evaluation.buckets, part[iou_type]['buckets'], strict=True):
                for name in _BUCKET_SCALARS:
                    if row[name] is not None:
                        values[f'{prefix}{iou_type}_{COCO_METRIC_NAMES[name]}_{bucket.key}'] = row[name]
    return values
