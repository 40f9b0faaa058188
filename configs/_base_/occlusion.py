# Evaluate by occlusion: add this file to `_base_`, and `default_hooks = _base_.occlusion_hook`, which merges with the hooks of the
# other base (custom_hooks would replace them). Replace a single CocoMetric: `val_evaluator = _base_.occlusion_metric` (and
# test_evaluator).
occlusion_metric = dict(type='mmtied.OcclusionCocoMetric')
occlusion_hook = dict(occlusion=dict(type='mmtied.OcclusionEvalHook'))
