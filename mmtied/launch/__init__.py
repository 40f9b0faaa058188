"""Everything that the tools need around mmengine's Runner: configs, checkpoints, data and deployment."""

from mmtied.compat import require

require('mmengine', 'mmtied.launch')
