"""How many primary and secondary partitions an interleaved group convolution has.

Zhang et al., "Interleaved Group Convolutions for Deep Neural Networks", ICCV 2017, https://arxiv.org/abs/1707.02725, Section 3.2.
"""

from math import gcd, inf, isqrt
from typing import NamedTuple

from mmtied.layers.blocks import check_positive, divisors


class Partitions(NamedTuple):
    """L primary partitions of M channels each, which are M secondary partitions of L channels each.

    Attributes:
        num_primary: L.
        num_secondary: M.

    Example:
        >>> Partitions(28, 3).width, Partitions(28, 3).parameters()
        (84, 4620)
    """

    num_primary: int
    num_secondary: int

    @property
    def width(self) -> int:
        """The number of channels, G = L M."""
        return self.num_primary * self.num_secondary

    def parameters(self, kernel_area: int = 9) -> int:
        """Weights of a block from G to G channels, L M M S + M L L (Eq. 7), where S = kernel_area."""
        return self.width * (self.num_secondary * kernel_area + self.num_primary)


def widest_partitions(budget: int, kernel_area: int = 9, tolerance: float = 0.0) -> Partitions:
    """The widest block for a number of parameters; of equally wide ones that with the fewest.

    A block of T parameters is at most (T / (2 sqrt(S)))^(2/3) channels wide (Eq. 15), which L = M S would reach; this finds the
    best whole numbers.

    Args:
        budget: T, how many weights the block may have.
        kernel_area: S, 9 for 3x3 filters.
        tolerance: How far the block may exceed the budget, as a part of it. Table 1 compares blocks of "roughly equal" size:
            its own differ by 2 %.

    Raises:
        ValueError: A budget that is too small for a single channel, or a tolerance that is negative or no number.

    Example:
        >>> widest_partitions(4672)  # Table 1, (i)
        Partitions(num_primary=28, num_secondary=3)
        >>> widest_partitions(17536, tolerance=0.01)  # Table 1, (ii)
        Partitions(num_primary=41, num_secondary=5)
    """
    check_positive('widest_partitions', budget=budget, kernel_area=kernel_area)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < inf:
        raise ValueError(f'widest_partitions: tolerance={tolerance!r}, expected 0 or more, a number that is finite')
    most = int(budget * (1 + tolerance))
    if most < kernel_area + 1:
        raise ValueError(f'widest_partitions: budget={budget}, expected at least {kernel_area + 1}, the weights of one channel '
                         f'with kernel_area={kernel_area}')
    candidates = []
    num_secondary = 1
    while Partitions(1, num_secondary).parameters(kernel_area) <= most:
        inner = num_secondary * kernel_area  # L (M S + L) <= T / M, solved for L
        num_primary = (isqrt(inner * inner + 4 * (most // num_secondary)) - inner) // 2
        candidates.append(Partitions(num_primary, num_secondary))
        num_secondary += 1
    return max(candidates, key=lambda partitions: (partitions.width, -partitions.parameters(kernel_area)))


def leanest_partitions(in_channels: int, out_channels: int, kernel_area: int = 9) -> Partitions:
    """The partitions with the fewest parameters for a convolution from in_channels to out_channels.

    L divides both channel counts and M is out_channels / L. Between equal widths the optimum is near L = M S, as it is for
    the widest block of a size. Where several have as few, the largest L is taken.

    Example:
        >>> leanest_partitions(64, 64)
        Partitions(num_primary=32, num_secondary=2)
        >>> leanest_partitions(3, 64)  # an image has one primary partition
        Partitions(num_primary=1, num_secondary=64)
    """
    check_positive('leanest_partitions', in_channels=in_channels, out_channels=out_channels, kernel_area=kernel_area)

    def weights(num_primary: int) -> int:
        return out_channels * (in_channels // num_primary * kernel_area + num_primary)

    num_primary = min(reversed(divisors(gcd(in_channels, out_channels))), key=weights)
    return Partitions(num_primary, out_channels // num_primary)
