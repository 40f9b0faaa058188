"""A checkpoint fits a tied backbone, or loading it is an error.

mmengine loads weights leniently: a shape that differs, or a key that is missing or unknown, is a warning in the log. mmdet's base
configs freeze a stage and every BatchNorm because they expect ImageNet weights, so a checkpoint of another network would leave
random layers frozen for a whole training run, or drop blocks and attention that its other weights were trained with.
`StagedResNet` calls `check_fits` whenever weights are loaded into it, and raises.
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
        optional: Names of submodules whose weights may be missing where they are trained, for example attention plugins.

    Raises:
        ValueError: Some weights are missing, unknown or of other shapes; names the first of them.
    """
    mine = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    if not mine and prefix:
        return
    misfits = find_misfits(module, mine, optional)
    if misfits:
        raise ValueError(_message(type(module).__name__, misfits, mine))


def find_misfits(module: nn.Module, state_dict: Mapping[str, Tensor], optional: Collection[str] = ()) -> list[str]:
    """Which weights keep a state_dict from being that of a module, one phrase each.

    Weights of the module that are missing or have another shape, and weights of the state_dict that lie in a part of the module
    (stem, layer1, ...) and that the module does not have. Parts that the module lacks, such as a classifier's head or further
    stages, are left alone.
    """
    misfits = []
    own = module.state_dict()
    frozen = {key for key, parameter in module.named_parameters() if not parameter.requires_grad}
    for key, value in own.items():
        if key.endswith(_COUNTERS):
            continue
        if key not in state_dict:
            if not any(f'.{name}.' in f'.{key}' for name in optional):
                misfits.append(f'{key} is missing')
            elif key in frozen:
                misfits.append(f'{key} is missing and would be frozen untrained; frozen_stages=-1 or 0 trains it')
        elif state_dict[key].shape != value.shape:
            misfits.append(f'{key} is {tuple(state_dict[key].shape)}, expected {tuple(value.shape)}')
    parts = {key.partition('.')[0] for key in own}
    misfits += [f'{key} is not in this network' for key in state_dict
                if key not in own and key.partition('.')[0] in parts and not key.endswith(_COUNTERS)]
    return misfits


def name_some(misfits: list[str]) -> str:
    """The first few misfits, and how many more there are."""
    return '; '.join(misfits[:3]) + (f'; and {len(misfits) - 3} more' if len(misfits) > 3 else '')


def _message(name: str, misfits: list[str], state_dict: Mapping[str, Tensor]) -> str:
    if any(key.startswith('backbone.') for key in state_dict):
        advice = "it holds a whole model, so add prefix='backbone.' to init_cfg"
    else:
        advice = f'give weights of a {name} with the same settings, or set strict_checkpoint=False to load what fits'
    return f'{name}: the checkpoint does not fit ({name_some(misfits)}); {advice}'
