import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmtied.evaluation.targets import find_patterns


@given(st.integers(0, 10000), st.lists(st.integers(0, 4), max_size=12), st.integers(1, 9))
def test_patterns_are_distinct_and_complete(seed, cells, num_columns):
    rng = np.random.default_rng(seed)
    cells = torch.tensor(sorted(cells), dtype=torch.int64)
    ignored, crowd = torch.from_numpy(rng.random((len(cells), num_columns)) < .6), torch.from_numpy(rng.random(len(cells)) < .5)
    patterns = find_patterns(cells, ignored, crowd)
    for target in range(len(cells)):
        copies = patterns.first_copy[target] + patterns.of_column[patterns.cell[target]]
        assert torch.equal(patterns.ignored[copies], ignored[target])
        assert torch.equal(patterns.crowd[copies], crowd[target].expand(num_columns))
    for number, cell in enumerate(torch.unique(cells)):
        distinct = torch.unique(ignored[cells == cell], dim=1).shape[1]
        assert patterns.counts[number] == distinct
