"""A misspelt setting of a backbone is an error that names the backbone and what was probably meant."""

from difflib import get_close_matches
from inspect import signature

from .staged_resnet import StagedResNet


def check_names(backbone: type[StagedResNet], settings: dict[str, object]) -> None:
    """Raise a TypeError, as Python does, for a setting that `StagedResNet` does not take.

    Python's own message names StagedResNet, which the user never wrote.

    Args:
        backbone: The class that the user named.
        settings: What is left for StagedResNet, by name.
    """
    known = signature(StagedResNet.__init__).parameters
    for name in settings:
        if name not in known:
            taken = [taken for parent in backbone.__mro__ if issubclass(parent, StagedResNet)
                     for taken in signature(parent.__init__).parameters]
            meant = get_close_matches(name, taken, n=1)
            raise TypeError(f"{backbone.__name__} got an unexpected keyword argument '{name}'"
                            + (f'; did you mean {meant[0]}?' if meant else ''))
