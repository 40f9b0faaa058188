"""Start the processes of a distributed run as torchrun does, and end with one line where one of them fails.

``python -m mmtied.launch.workers --nproc_per_node 8 tools/train.py CONFIG --launcher pytorch`` takes torchrun's arguments.
``tools/dist_train.sh`` and ``tools/dist_test.sh`` use it.
"""

import logging
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until all processes have ended; exit with the code of the first that failed, after a line that says which.

    What went wrong is said by that process itself. torchrun would add its own traceback and a table to it.
    """
    logging.disable(logging.ERROR)  # of this process alone: torchrun's lines on the same failure
    try:
        torchrun(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = f'was ended by signal {-failure.exitcode}' if failure.exitcode < 0 else f'failed with exit code {failure.exitcode}'
        print(f'error: process {rank} {how}, and the others were ended; its own message is above', file=sys.stderr)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
    except RuntimeError as error:
        if 'address already in use' not in str(error).lower():
            raise
        print('error: the port of this run is in use; PORT=29501 (--master_port) sets another', file=sys.stderr)
        sys.exit(2)


if __name__ == '__main__':
    main()
