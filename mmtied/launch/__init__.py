"""Support for the tools around mmengine's Runner: configs, checkpoints, data and conversion."""

from mmtied.compat import require

require(['mmengine', 'mmcv'], 'Running a config')

from mmtied import registry  # noqa: E402, F401  (the command mmtied starts without registering)
