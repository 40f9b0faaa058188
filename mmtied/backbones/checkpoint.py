"""Strict checkpoints: weights that do not fit a backbone raise an error.

mmengine only logs a warning for wrong shapes and missing or unknown keys. mmdet's base configs freeze a stage and every BatchNorm
because they expect ImageNet weights, so a checkpoint of another network could leave random layers frozen for a whole training
run, or drop the blocks and attention that its other weights were trained with.
"""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

#: Counters that affect no output and that old checkpoints lack.
_COUNTERS = 'num_batches_tracked'


class StrictCheckpoint:
    """Mixin that rejects weights that do not fit, with a ValueError, if `strict_checkpoint` is set.

    As a submodule, the network accepts a state_dict without any weights for it.
    """

    strict_checkpoint = False
    #: Submodules whose weights may be missing unless they are frozen.
    optional_parts: Collection[str] = ()

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: object) -> None:
        mine = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        if self.strict_checkpoint and (mine or not prefix):
            misfits = find_misfits(self, mine, self.optional_parts)
            if misfits:
                raise ValueError(_message(self, misfits, mine))
        super()._load_from_state_dict(state_dict, prefix, *args)


def find_misfits(module: nn.Module, state_dict: Mapping[str, Tensor], optional: Collection[str] = ()) -> list[str]:
    """Return one phrase for each weight of a state_dict that does not fit a module.

    A misfit is a weight of the module that is missing or has the wrong shape, or an unknown weight inside one of its parts (stem,
    layer1, ...). Parts that the module lacks, such as a classifier's head or later stages, are ignored.
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
    """Return the first three misfits and the number of the others."""
    return '; '.join(misfits[:3]) + (f'; and {len(misfits) - 3} more' if len(misfits) > 3 else '')


def find_hint(module: nn.Module, keys: Collection[str]) -> str:
    """Return the ``checkpoint_hint`` of the first part of a module that has one for these keys, or ''."""
    hints = (part.checkpoint_hint(keys) for part in module.modules() if hasattr(part, 'checkpoint_hint'))
    return next(filter(None, hints), '')


def _message(module: nn.Module, misfits: list[str], state_dict: Mapping[str, Tensor]) -> str:
    name = type(module).__name__
    advice = find_hint(module, state_dict)
    if not advice and any(key.startswith('backbone.') for key in state_dict):
        advice = "it contains a whole model; add prefix='backbone.' to init_cfg"
    elif not advice:
        advice = f'give weights of a {name} with the same settings, or set strict_checkpoint=False to load what fits'
    return f'{name}: the checkpoint does not fit ({name_some(misfits)}); {advice}'
