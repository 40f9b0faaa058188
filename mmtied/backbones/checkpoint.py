"""A checkpoint fits a tied backbone, or loading it is an error.

mmengine loads weights leniently: a shape that differs, or a key that is missing, is a warning in the log. mmdet's base configs
freeze a stage and every BatchNorm because they expect ImageNet weights, so a checkpoint of an untied network would leave random
layers frozen for a whole training run. `StagedResNet` calls `check_fits` whenever weights are loaded into it, and raises.
"""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

#: Counters that change no output; old checkpoints lack them.
_COUNTERS = 'num_batches_tracked'


def check_fits(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str = '', optional: Collection[str] = ()) -> None:
    """Raise a ValueError when weights do not fit a module.

    A state_dict that holds nothing for the module is left alone, unless the module itself is what is being loaded.

    Args:
        module: A backbone.
        state_dict: What is being loaded.
        prefix: Where the module's own keys start in it, '' if the module itself is being loaded.
        optional: Names of submodules whose weights may be missing, for example attention plugins.

    Raises:
        ValueError: Some weights are missing or have other shapes; names the first of them.
    """
    mine = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    if not mine and prefix:
        return
    misfits = find_misfits(module, mine, optional)
    if misfits:
        raise ValueError(_message(type(module).__name__, misfits, len(module.state_dict()), mine))


def find_misfits(module: nn.Module, state_dict: Mapping[str, Tensor], optional: Collection[str] = ()) -> list[str]:
    """Which of a module's weights are missing from a state_dict or have another shape there, one phrase each."""
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


def name_some(misfits: list[str]) -> str:
    """The first few misfits, and how many more there are."""
    return '; '.join(misfits[:3]) + (f'; and {len(misfits) - 3} more' if len(misfits) > 3 else '')


def _message(name: str, misfits: list[str], total: int, state_dict: Mapping[str, Tensor]) -> str:
    if any(key.startswith('backbone.') for key in state_dict):
        advice = "it holds a whole model, so add prefix='backbone.' to init_cfg"
    else:
        advice = f'give weights of a {name} with the same settings, or set strict_checkpoint=False to load what fits'
    return f'{name}: the checkpoint does not fit {len(misfits)} of {total} weights ({name_some(misfits)}); {advice}'
