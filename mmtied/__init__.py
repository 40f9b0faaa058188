"""Tied block convolution for MMDetection, and detection accuracy as a function of occlusion.

Importing the package registers its layers, backbones, plugins, metric and hooks with mmengine (see `mmtied.registry`). Without
mmengine and mmcv the layers (`mmtied.layers`) and the evaluation's arithmetic still work; they need only torch.

Programs that only evaluate detections can set the environment variable ``MMTIED_REGISTER=0`` first: the import then registers
nothing and loads neither torch, mmengine nor mmcv. The command `mmtied` and the scripts in tools/ leave registration to the code
that needs it (`mmtied.launch`), so that they start at once.
"""

import os
import sys
from itertools import pairwise
from pathlib import Path

from .compat import is_installed
from .version import __version__


def _is_command() -> bool:
    """Return True in the console script, in the scripts of tools/, and while ``python -m mmtied`` imports the package."""
    program = (sys.argv or [''])[0]
    if program == '-m':  # argv[0] of every import until Python has found the module to run
        return any(option.endswith('m') and module == 'mmtied' for option, module in pairwise(sys.orig_argv))
    package = Path(__file__).parent
    folders = [os.path.realpath(folder) for folder in (Path(program).parent, package.parent / 'tools', package / '.mim/tools')]
    return Path(program).stem == 'mmtied' or (program.endswith('.py') and folders[0] in folders[1:])


if os.environ.get('MMTIED_REGISTER') != '0' and not _is_command() and is_installed('mmengine', 'mmcv'):
    from . import registry  # noqa: F401

__all__ = ['__version__']
