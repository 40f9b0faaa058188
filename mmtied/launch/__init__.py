"""Everything that the tools need around mmengine's Runner: configs, checkpoints, data and deployment."""

from mmtied.compat import require

require(['mmengine', 'mmcv'], 'Running a config')

from mmtied import registry  # noqa: E402, F401  (the command mmtied does not register at its start)
