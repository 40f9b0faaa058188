# Reports by occlusion: add this file to `_base_`, and where the evaluator is one CocoMetric let
# `val_evaluator = _base_.occlusion_metric` (and test_evaluator) take its place.
occlusion_metric = dict(type='mmtied.OcclusionCocoMetric')
custom_hooks = [dict(type='mmtied.OcclusionEvalHook')]
