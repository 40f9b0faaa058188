"""A checkpoint fits a tied backbone, or loading it is an error.

mmengine loads weights leniently: a shape that differs, or a key that is missing, is a warning in the log. mmdet's base configs
freeze a stage and every BatchNorm because they expect ImageNet weights, so a checkpoint of an untied network would leave random
layers frozen for a whole training run. A backbone that calls `refuse_unfit_checkpoints` raises instead.
"""

from collections.abc import Iterable

from torch import nn

#: Counters that change no output; old checkpoints lack them.
_COUNTERS = 'num_batches_tracked'


def refuse_unfit_checkpoints(module: nn.Module, optional: Iterable[str] = ()) -> None:
    """Make every load of weights into `module` raise a ValueError when they do not fit it.

    Loading a state_dict that holds nothing for the module is left alone, unless the module itself is what is being loaded.

    Args:
        module: A backbone.
        optional: Names of submodules whose weights a checkpoint may lack, for example attention plugins.
    """
    optional = tuple(optional)

    def check(backbone, state_dict, prefix, *_) -> None:
        mine = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        if not mine and prefix:
            return
        misfits = _misfits(backbone, mine, optional)
        if misfits:
            raise ValueError(_message(type(backbone).__name__, misfits, len(backbone.state_dict()), mine))

    module.register_load_state_dict_pre_hook(check)


def _misfits(module: nn.Module, state_dict: dict, optional: tuple[str, ...]) -> list[str]:
    """What is missing or of another shape, one phrase each."""
    misfits = []
    for key, value in module.state_dict().items():
        if key.endswith(_COUNTERS):
            continue
        if key not in state_dict:
            if not any(f'.{name}.' in f'.{key}' for name in optional):
                misfits.append(f'{key} is missing')
        elif state_dict[key].shape != value.shape:
            misfits.append(f'{key} is {tuple(state_dict[key].shape)}, expected {tuple(value.shape)}')
    return misfits


def _message(name: str, misfits: list[str], total: int, state_dict: dict) -> str:
    shown = '; '.join(misfits[:3]) + (f'; and {len(misfits) - 3} more' if len(misfits) > 3 else '')
    if any(key.startswith('backbone.') for key in state_dict):
        advice = "it holds a whole model, so add prefix='backbone.' to init_cfg"
    else:
        advice = f'give weights of a {name} with the same settings, or set strict_checkpoint=False to load what fits'
    return f'{name}: the checkpoint does not fit {len(misfits)} of {total} weights ({shown}); {advice}'
