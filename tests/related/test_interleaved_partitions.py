"""Sizes and widths of Section 3.2 against Table 1 and an exhaustive search."""

import pytest
from torch import nn

from mmtied.layers import IGC, Partitions, leanest_partitions, widest_partitions
from tests.helpers.published import printed_tables

#: Table 1: L, M, parameters, width.
TABLE_1 = {
    4672: [(1, 23, 4784, 23), (2, 16, 4672, 32), (3, 13, 4680, 39), (5, 10, 4750, 50), (6, 9, 4698, 54), (12, 6, 4752, 72),
           (28, 3, 4620, 84), (40, 2, 4640, 80), (64, 1, 4672, 64)],
    17536: [(1, 44, 17468, 44), (2, 31, 17422, 62), (4, 22, 17776, 88), (12, 12, 17280, 144), (14, 11, 17402, 154),
            (23, 8, 17480, 184), (28, 7, 17836, 196), (41, 5, 17630, 205), (64, 3, 17472, 192), (85, 2, 17510, 170),
            (128, 1, 17536, 128)],
}
ROWS = [row for rows in TABLE_1.values() for row in rows]


@pytest.mark.parametrize(('num_primary', 'num_secondary', 'printed', 'width'), ROWS)
def test_sizes_of_table_1(num_primary, num_secondary, printed, width):
    partitions = Partitions(num_primary, num_secondary)
    assert (partitions.parameters(), partitions.width) == (printed, width)
    layer = IGC(width, width, 3, bias=False, num_primary=num_primary)
    assert layer.partitions == partitions
    assert sum(p.numel() for p in layer.parameters()) == printed


def test_table_1_matches_the_paper():
    """Except for one width: L = 2 and M = 31 are printed with 63 channels, which is not their product."""
    printed = printed_tables('interleaved_group_convolutions')['table1_widths']
    for budget, rows in TABLE_1.items():
        columns = printed[str(budget)]
        theirs = list(zip(columns['L'], columns['M'], columns['params'], columns['width'], strict=True))
        assert [row for row in theirs if row not in rows] == ([(2, 31, 17422, 63)] if budget == 17536 else [])


@pytest.mark.parametrize('kernel_area', [1, 3, 9, 25])
@pytest.mark.parametrize('budget', [26, 100, 999, 4672, 17536])
def test_widest_equals_exhaustive_search(budget, kernel_area):
    tried = [Partitions(a, b) for a in range(1, budget) for b in range(1, 1 + budget // a)
             if a * b * b * kernel_area + b * a * a <= budget]
    width = max(p.width for p in tried)
    widest = widest_partitions(budget, kernel_area)
    assert widest.width == width
    assert widest.parameters(kernel_area) == min(p.parameters(kernel_area) for p in tried if p.width == width)
    assert width <= (budget / (2 * kernel_area**0.5))**(2 / 3)  # Eq. 15


def test_widest_of_table_1():
    """The greatest width is where L is about 9 M: with 4672 parameters L28M3, with about 17536 L41M5."""
    assert widest_partitions(4672) == (28, 3)
    assert widest_partitions(17536, tolerance=0.01) == (41, 5)
    assert widest_partitions(17536).width == 200


def test_widest_reaches_the_bound():
    """L = M S makes Eq. 12 an equality."""
    for num_secondary in (1, 2, 5):
        budget = Partitions(9 * num_secondary, num_secondary).parameters()
        assert widest_partitions(budget) == (9 * num_secondary, num_secondary)


@pytest.mark.parametrize(('ins', 'outs'), [(48, 48), (64, 128), (128, 64), (3, 64), (36, 60), (7, 11)])
@pytest.mark.parametrize('kernel_area', [1, 9])
def test_leanest_equals_exhaustive_search(ins, outs, kernel_area):
    kernel = int(kernel_area**0.5)
    sizes = {}
    for num_primary in range(1, 129):
        if ins % num_primary == outs % num_primary == 0:
            layer = nn.ModuleList([nn.Conv2d(ins, outs, kernel, groups=num_primary, bias=False),
                                   nn.Conv2d(outs, outs, 1, groups=outs // num_primary, bias=False)])
            sizes[num_primary] = sum(p.numel() for p in layer.parameters())
    chosen = leanest_partitions(ins, outs, kernel_area)
    assert sizes[chosen.num_primary] == min(sizes.values())
    assert chosen.width == outs


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: widest_partitions(9), 'widest_partitions: budget=9 is too small; use at least 10, the weights of one channel'),
    (lambda: widest_partitions(0), 'budget=0, expected a positive integer'),
    (lambda: widest_partitions(100, tolerance=-1), 'tolerance=-1, expected a finite number >= 0'),
    *((lambda tolerance=tolerance: widest_partitions(100, tolerance=tolerance),
       f'tolerance={tolerance!r}, expected a finite number')
      for tolerance in (float('nan'), float('inf'), '0.1')),
    (lambda: leanest_partitions(0, 8), 'in_channels=0, expected a positive integer'),
])
def test_user_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
