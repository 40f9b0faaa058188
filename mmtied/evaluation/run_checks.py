"""Checks before a run starts: lost hooks, monitored scalars that validation never reports, joined datasets, missing masks."""

import ast
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

#: Suffix of a bucket's scalar: ``_r0``, ``_r0.1-0.2``, ``_r0.8-up``.
_BUCKET = re.compile(r'_r\d[\d.]*(-(up|[\d.]+))?$')


def check_joined(dataset: Any) -> None:
    """Raise a ValueError if joined datasets use one id for different images, as the metric counts each id once."""
    paths: dict[Any, Any] = {}
    for part in getattr(dataset, 'datasets', None) or ():
        for number in range(len(part)) if hasattr(part, 'get_data_info') else ():
            info = part.get_data_info(number)
            other = paths.setdefault(info.get('img_id'), info.get('img_path'))
            if other != info.get('img_path'):
                raise ValueError(f'OcclusionEvalHook: the joined datasets use image id {info.get("img_id")} for different '
                                 f'images, {other} and {info.get("img_path")}; evaluate one dataset at a time, or make the ids '
                                 'unique')


def check_has_masks(model: Any, iou_types: Sequence[str]) -> None:
    """Raise a ValueError if masks are to be evaluated for an mmdet two-stage detector without a mask head."""
    if 'segm' in iou_types and getattr(model, 'with_roi_head', False) and not getattr(model, 'with_mask', True):
        raise ValueError(f"OcclusionEvalHook: metric 'segm' needs masks, and {type(model).__name__} has no mask head; set "
                         "metric='bbox'")


def check_monitors(monitored: Iterable[tuple[str, str]], metrics: Sequence[Any]) -> None:
    """Raise a ValueError if a run monitors a scalar, from `monitored_scalars`, that validation does not report.

    Only scalars of an `OcclusionCocoMetric` and prefixes that belong to no metric are checked.
    """
    ours = [metric for metric in metrics if hasattr(metric, 'scalar_names')]
    names = [name for metric in ours for name in metric.scalar_names()] if ours else []
    other_prefixes = {metric.prefix for metric in metrics if metric not in ours}
    for setting, key in monitored:
        prefix, _, scalar = key.rpartition('/')
        may_be_others = None in other_prefixes or prefix in other_prefixes
        if not ours or key in names or (may_be_others and not _BUCKET.search(key)):
            continue
        empty = next((bucket.name for metric in ours if metric.prefix == prefix for part in metric.evaluations
                      for bucket in part.buckets if scalar.endswith(f'_{bucket.key}')), None)
        others = [name for name in names if name.rpartition('/')[2] == scalar]
        close = others or difflib.get_close_matches(key, names, 1)
        wrong = f'bucket {empty} has no instances' if empty else 'the validation reports no such scalar'
        advice = f'did you mean {close[0]}? ' if close and not empty else ''
        rest = f' and {len(names) - 5} more' if len(names) > 5 else ''
        raise ValueError(f'{setting}={key!r}: {wrong}; {advice}validation reports {", ".join(names[:5])}{rest}')


def monitored_scalars(hooks: Iterable[Any], schedulers: Any) -> Iterator[tuple[str, str]]:
    """Yield the setting and the name of each validation scalar that a Runner's hooks and schedulers monitor."""
    for hook in hooks:
        saved = getattr(hook, 'save_best', None)
        for key in [saved] if isinstance(saved, str) else saved or []:
            if key != 'auto':
                yield 'save_best', key
        if isinstance(getattr(hook, 'monitor', None), str):
            yield f'{type(hook).__name__}: monitor', hook.monitor
    for name, key in _scheduler_monitors(schedulers):
        yield f'{name}: monitor', key


def _scheduler_monitors(schedulers: Any) -> Iterator[tuple[str, str]]:
    """Yield the type and the `monitor` of schedulers, built or not: one, a list, or a dict of lists."""
    if isinstance(schedulers, dict) and 'type' not in schedulers:
        schedulers = list(schedulers.values())
    if isinstance(schedulers, list | tuple):
        for scheduler in schedulers:
            yield from _scheduler_monitors(scheduler)
        return
    of_config = isinstance(schedulers, dict)
    monitor = schedulers.get('monitor') if of_config else getattr(schedulers, 'monitor', None)
    if isinstance(monitor, str):
        yield schedulers['type'] if of_config else type(schedulers).__name__, monitor


def lost_hooks(config_file: str | None) -> list[str]:
    """Return the types of the base configs' hooks that a config dropped by listing the OcclusionEvalHook in `custom_hooks`.

    Reads the nearest file, from the config up, that assigns `custom_hooks`; returns nothing if that file cannot be read.
    """
    try:
        return _lost(Path(config_file).resolve()) if config_file else []
    except Exception:  # a config is Python code, and this is only advice
        return []


def _lost(path: Path) -> list[str]:
    from mmengine.config import Config

    assigned = {target.id: node.value for node in ast.parse(path.read_text(encoding='utf-8')).body
                if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)}
    if '_base_' not in assigned:
        return []
    bases = ast.literal_eval(assigned['_base_'])
    bases = [base if '::' in base else str(path.parent / base) for base in ([bases] if isinstance(bases, str) else bases)]
    if 'custom_hooks' not in assigned:
        return [hook for base in bases if '::' not in base for hook in _lost(Path(base))]
    kept = {hook['type'] for hook in Config.fromfile(path).custom_hooks}
    if not any(hook.endswith('OcclusionEvalHook') for hook in kept):
        return []
    below = Config.fromstring(f'_base_ = {bases!r}', file_format='.py').get('custom_hooks') or []
    return [hook['type'] for hook in below if hook['type'] not in kept]
