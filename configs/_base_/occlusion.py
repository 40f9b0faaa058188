# Evaluate by occlusion: add this file to `_base_`. If the evaluator is a single CocoMetric, replace it:
# `val_evaluator = _base_.occlusion_metric` (and test_evaluator).
occlusion_metric = dict(type='mmtied.OcclusionCocoMetric')
custom_hooks = [dict(type='mmtied.OcclusionEvalHook')]
