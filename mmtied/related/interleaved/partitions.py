"""Choice of primary and secondary partitions of an interleaved group convolution (Section 3.2)."""

from math import gcd, inf, isqrt
from typing import NamedTuple

from mmtied.layers.blocks import check_positive, divisors


class Partitions(NamedTuple):
    """L primary partitions of M channels each, which form M secondary partitions of L channels each.

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
        """Number of channels, G = L M."""
        return self.num_primary * self.num_secondary

    def parameters(self, kernel_area: int = 9) -> int:
        """Count the weights of a block from G to G channels, L M M S + M L L (Eq. 7), with S = kernel_area."""
        return self.width * (self.num_secondary * kernel_area + self.num_primary)


def widest_partitions(budget: int, kernel_area: int = 9, tolerance: float = 0.0) -> Partitions:
    """Return the widest block within a budget of parameters; of equally wide ones, the one with the fewest parameters.

    A block of T parameters has at most (T / (2 sqrt(S)))^(2/3) channels (Eq. 15), reached if L = M S; this function finds the
    best integers.

    Args:
        budget: T, the number of weights.
        kernel_area: S, 9 for 3x3 filters.
        tolerance: Fraction by which the block may exceed the budget; the "roughly equal" blocks of Table 1 differ by 2 %.

    Raises:
        ValueError: The budget is too small for a single channel, or the tolerance is negative or not finite.

    Example:
        >>> widest_partitions(4672)  # Table 1, (i)
        Partitions(num_primary=28, num_secondary=3)
        >>> widest_partitions(17536, tolerance=0.01)  # Table 1, (ii)
        Partitions(num_primary=41, num_secondary=5)
    """
    check_positive('widest_partitions', budget=budget, kernel_area=kernel_area)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < inf:
        raise ValueError(f'widest_partitions: tolerance={tolerance!r}, expected a finite number >= 0')
    limit = int(budget * (1 + tolerance))
    if limit < kernel_area + 1:
        raise ValueError(f'widest_partitions: budget={budget} is too small; use at least {kernel_area + 1}, the weights of one '
                         f'channel with kernel_area={kernel_area}')
    candidates = []
    num_secondary = 1
    while Partitions(1, num_secondary).parameters(kernel_area) <= limit:
        inner = num_secondary * kernel_area  # L (M S + L) <= T / M, solved for L
        num_primary = (isqrt(inner * inner + 4 * (limit // num_secondary)) - inner) // 2
        candidates.append(Partitions(num_primary, num_secondary))
        num_secondary += 1
    return max(candidates, key=lambda partitions: (partitions.width, -partitions.parameters(kernel_area)))


def leanest_partitions(in_channels: int, out_channels: int, kernel_area: int = 9) -> Partitions:
    """Return the partitions with the fewest parameters for a convolution from in_channels to out_channels.

    L divides both channel counts, and M is out_channels / L. For equal channel counts the optimum is near L = M S, as for the
    widest block of a size. Ties go to the largest L.

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
