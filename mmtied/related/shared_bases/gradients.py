"""Record the gradients of shared bases during training (Kang & Kim, Figure 3)."""

import csv
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from mmtied.arguments import suggest_arguments
from mmtied.compat import unwrap_model

from .figures import COLUMNS, GRADIENTS_FILE
from .training import trained_bases


@HOOKS.register_module()
@suggest_arguments
class BasisGradientHook(Hook):
    """Write the gradient of each shared basis to ``basis_gradients.csv`` in the work_dir, as its mean, maximum and norm.

    Mean and maximum are of absolute values, as in Figure 3. The gradient is the one that the optimizer uses: of the whole loss
    with its terms, averaged over processes, accumulated and unscaled. A resumed run appends. `mmtied bases gradients` draws the
    file.

    Args:
        interval: Steps of the optimizer between records; the authors' is 10.

    Raises:
        ValueError: The interval is not a positive integer, or, as training begins, the model has no trained shared bases.

    Example:
        In a config: ``custom_hooks = [dict(type='mmtied.BasisGradientHook')]``.
    """

    def __init__(self, interval: int = 10) -> None:
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise ValueError(f'BasisGradientHook: interval={interval!r}, expected a positive integer')
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Watch the optimizer's steps."""
        model = unwrap_model(runner.model)
        bases = trained_bases(model)
        if not bases:
            raise ValueError(f'BasisGradientHook: {type(model).__name__} has no trained shared bases; use a backbone that has '
                             'them, such as mmtied.SharedResNet with num_bases of 1 or more')
        path = Path(runner.work_dir) / GRADIENTS_FILE
        if is_main_process() and not (runner.iter and path.exists()):
            with path.open('w', newline='', encoding='utf-8') as file:
                csv.writer(file).writerow(COLUMNS)
        steps = [0]

        def record(*_: object) -> None:
            if steps[0] % self.interval == 0 and is_main_process():
                rows = [(runner.iter, name, *describe_gradient(basis.weight.grad)) for name, basis in bases.items()
                        if basis.weight.grad is not None]
                with path.open('a', newline='', encoding='utf-8') as file:
                    csv.writer(file).writerows(rows)
            steps[0] += 1

        self._handle = runner.optim_wrapper.optimizer.register_step_pre_hook(record)

    def after_train(self, runner: Runner) -> None:
        """Stop watching."""
        self._handle.remove()


def describe_gradient(gradient: Tensor) -> tuple[float, float, float]:
    """Return the mean and the maximum of a gradient's absolute values, and its norm."""
    values = gradient.detach().float().abs()
    return values.mean().item(), values.max().item(), values.norm().item()
