"""Start the processes of a distributed run like torchrun, but report a failing process in one line.

``python -m mmtied.launch.workers --nproc_per_node 8 tools/train.py CONFIG --launcher pytorch`` takes torchrun's arguments.
``tools/dist_train.sh`` and ``tools/dist_test.sh`` use it.
"""

import logging
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until all processes have ended; name the first that failed in one line, and exit with its code.

    The process prints its own error; torchrun would add a traceback and a table.
    """
    logging.disable(logging.ERROR)  # only in this process: torchrun logs the same failure
    try:
        torchrun(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = f'was killed by signal {-failure.exitcode}' if failure.exitcode < 0 else f'failed with exit code {failure.exitcode}'
        print(f'error: process {rank} {how}, and the others were stopped; its own message is above', file=sys.stderr)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
    except RuntimeError as error:
        if 'address already in use' not in str(error).lower():
            raise
        print('error: the port of this run is in use; set another with PORT=29501 (--master_port)', file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    main()
