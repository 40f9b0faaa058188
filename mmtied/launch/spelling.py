"""Find misspelt settings and types of a config, with the name that was probably meant."""

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner

from mmtied.cli import warn

#: What mmengine's Runner takes from a config, and what it or the tools read from the config itself.
SETTINGS = frozenset({*inspect.signature(Runner.__init__).parameters, 'runner_type', 'strategy', 'find_unused_parameters',
                      'compile', 'custom_imports', 'sync_bn', 'model_wrapper_cfg', 'activation_checkpointing',
                      'efficient_conv_bn_eval', 'tta_model', 'tta_pipeline'}) - {'self', 'cfg'}
_NOT_REGISTERED = re.compile(r'(\S+) is not in the (?:\w+::)?([\w ]+?) registry')


def check_options(cfg: Config, keys: Iterable[str]) -> None:
    """Raise a ValueError where an option's first word looks like a misspelt setting; warn where nothing is known to read it.

    Args:
        cfg: The config before the options are merged.
        keys: The options' keys, such as ``model.backbone.depth``.
    """
    for key in keys:
        name = key.partition('.')[0]
        if name not in cfg and name not in SETTINGS:
            close = difflib.get_close_matches(name, {*cfg.keys(), *SETTINGS}, 1, .75)
            if close:
                raise ValueError(f'--cfg-options {key}: the config has no {name}; did you mean {key.replace(name, close[0], 1)}?')
            warn(f'--cfg-options {key}: the config has no {name}, so it is probably unused')


def warn_of_misspelt_settings(cfg: Config) -> None:
    """Warn of dicts and lists at a config's top level that are named almost like a setting of mmengine's Runner.

    Names of a config's own, which it uses further down, may look like that too.
    """
    for name, value in cfg.items():
        if name in SETTINGS or not isinstance(value, dict | list):
            continue
        close = difflib.get_close_matches(name, SETTINGS - {'tta_model', 'tta_pipeline'}, 1, .8)
        likely = close and (sorted(name) == sorted(close[0]) or difflib.SequenceMatcher(None, name, close[0]).ratio() > .85)
        if likely and abs(len(name) - len(close[0])) <= 2:
            warn(f'the config sets {name}, which mmengine does not read; did you mean {close[0]}?')


@contextmanager
def type_hints() -> Iterator[None]:
    """Turn mmengine's KeyError of a type that is not registered into a ValueError with the nearest registered name."""
    try:
        yield
    except KeyError as error:
        found = _NOT_REGISTERED.search(str(error))
        if not found:
            raise
        raise ValueError(describe_unknown_type(*found.groups())) from error


def describe_unknown_type(name: str, registry_name: str) -> str:
    """Describe a type that is not in a registry.

    Args:
        name: As the config has it, perhaps with a scope: ``SDG``, ``mmtied.TiedResnet``.
        registry_name: Such as ``optimizer`` or ``model``.
    """
    name = name.strip('\'"`')
    scope, _, bare = name.rpartition('.')
    names = dict(_registered(registry_name, scope))
    by_case = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(bare.lower(), by_case, 1)
    hint = (f'did you mean {names[by_case[close[0]]]}?' if close else
            'a type of your own needs custom_imports = dict(imports=[its module])')
    return f'{name} is not in the {registry_name} registry; {hint}'


def _registered(registry_name: str, scope: str) -> Iterator[tuple[str, str]]:
    """Yield the names in a registry and its children, each with the text that finds it from a scope or the default one."""
    default = DefaultScope.get_current_instance()
    for registry in vars(mmengine.registry).values():
        if isinstance(registry, Registry) and registry.name == registry_name:
            for child in registry.children.values():
                bare = not scope and default is not None and default.scope_name == child.scope
                yield from ((name, name if bare else f'{child.scope}.{name}') for name in child.module_dict)
            yield from ((name, f'{scope}.{name}' if scope in registry.children else name) for name in registry.module_dict)
