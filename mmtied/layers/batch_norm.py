"""Which normalisations are a constant scale and shift of each channel."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def uses_running_statistics(norm: nn.Module | None) -> bool:
    """Whether this is a BatchNorm (SyncBatchNorm included) that normalises with statistics of its own, and does no more.

    A subclass with a forward of its own may do more, as timm's BatchNormAct2d does; so may a forward put on the instance.
    """
    return (isinstance(norm, _BatchNorm) and type(norm).forward in _FORWARDS and 'forward' not in vars(norm)
            and not norm.training and norm.running_mean is not None)
