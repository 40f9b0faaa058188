"""Pixels of many run-length codes at once by NumPy, where there is no compiled library.

A code lists the lengths of runs of background and foreground by turns, down the columns. Each length after the third is
stored as the difference to the one two before it, in groups of five bits from the lowest up: one character for each group,
48 added, bit 5 set where another group follows, bit 4 of the last group the sign (`rleFrString` in maskApi.c).
"""

import numpy as np

#: Five bits for each character, signed where it is a length's last.
_GROUPS = bytes((((byte - 48) & 31 ^ 16) - 16) % 256 if byte < 80 else (byte - 48) & 31 for byte in range(256))
#: Groups of the longest length that is read: 35 bits.
_MOST_GROUPS = 7


def code_sums(text: bytes, length: np.ndarray, longest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of foreground, pixels in all, and whether the characters make sense, of each of M codes; shape (M,) each.

    The running sums that undo the differences run on from code to code; what came before a code is then taken off its sum.

    Args:
        text: The codes one after the other.
        length: Characters of each, shape (M,) int64.
        longest: Pixels of each mask, which no run may exceed, shape (M,) int64; a code with another run makes no sense.
    """
    characters, groups = np.frombuffer(text, dtype=np.uint8), np.frombuffer(text.translate(_GROUPS), dtype=np.int8)
    ends = np.cumsum(length)
    last = np.flatnonzero(characters < 80)
    value_ends = np.searchsorted(last, ends)
    value_starts = np.append(0, value_ends[:-1])
    whole = length > 0
    whole[whole] = characters[ends[whole] - 1] < 80

    first = np.append(0, last[:-1] + 1)[:len(last)]
    num_groups = last - first + 1
    values = groups[first].astype(np.int64)
    rest = np.flatnonzero(num_groups > 1)
    for group in range(1, min(int(num_groups.max(initial=0)), _MOST_GROUPS)):
        values[rest] += groups[first[rest] + group].astype(np.int64) << 5 * group
        rest = rest[num_groups[rest] > group + 1]
    wrong = np.concatenate([np.flatnonzero((characters < 48) | (characters > 111)), last[num_groups > _MOST_GROUPS]])
    whole[np.searchsorted(ends, wrong, side='right')] = False

    # The first background stands outside the differences.
    present = value_ends > value_starts
    first_gap = np.zeros_like(length)
    first_gap[present] = values[value_starts[present]]
    values[value_starts[present]] = 0
    chains = [np.cumsum(values[parity::2]) for parity in (0, 1)]
    whole &= (first_gap >= 0) & (first_gap <= longest)
    for parity, sums in enumerate(chains):
        cuts = (value_starts - parity + 1) // 2
        some = np.flatnonzero((value_ends - parity + 1) // 2 > cuts)
        if len(some):
            before = np.append(0, sums)[cuts[some]]
            whole[some] &= np.minimum.reduceat(sums, cuts[some]) >= before
            whole[some] &= np.maximum.reduceat(sums, cuts[some]) - before <= longest[some]
    chains = [(np.append(0, sums), np.append(0, np.cumsum(sums))) for sums in chains]

    def every_second(start: np.ndarray) -> np.ndarray:
        """The sum of the lengths at `start`, `start` + 2 ... of each code."""
        found = np.empty_like(start)
        for parity, (sums, double_sums) in enumerate(chains):
            here = start % 2 == parity
            low, high = (start[here] - parity) // 2, np.maximum(value_ends[here] - parity + 1, 0) // 2
            high = np.maximum(high, low)
            found[here] = double_sums[high] - double_sums[low] - (high - low) * sums[low]
        return found

    foreground = np.where(present, every_second(np.minimum(value_starts + 1, value_ends)), 0)
    background = np.where(present, every_second(value_starts), 0) + first_gap
    return foreground, foreground + background, whole
