"""What an evaluation leaves behind: the report, and what intervals, comparisons and pictures are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .accumulate import Records
from .buckets import Plan
from .inputs.ground_truth import GroundTruth
from .intervals import Bootstrap, add_intervals
from .occlusion import image_ratios
from .summary import summarize
from .targets import Targets


@dataclass(frozen=True)
class Evaluated:
    """One evaluated run.

    Args:
        report: See `summary.summarize`.
        records: Match records by IoU type, sorted as `join_records` sorts.
        targets: The ground truth that they were matched with.
        plan: The evaluations of the report, and their groups.
        ground_truth: The annotations.
        categories: Positions of the evaluated categories, see `GroundTruth.select_categories`.
        proposal_nums: See `protocol.limits`.
    """

    report: dict
    records: Mapping[str, Records]
    targets: Targets
    plan: Plan
    ground_truth: GroundTruth
    categories: np.ndarray
    proposal_nums: tuple[int, ...]

    def with_intervals(self, bootstrap: Bootstrap | None = None) -> 'Evaluated':
        """The same with intervals in the report, see `intervals.add_intervals`."""
        report = add_intervals(self.report, self.records, self.targets.positives(), self.plan.groupings,
                               self.targets.num_categories, bootstrap, self.proposal_nums)
        return replace(self, report=report)

    @property
    def picture_ratios(self) -> np.ndarray:
        """The ratio of every image by the main evaluation's definition, also where instances are bucketed, shape (I,)."""
        main = self.plan.evaluations[0]
        if main.unit == 'image':
            return self.plan.ratios[0]
        return image_ratios(self.ground_truth, main.definition, main.same_category)


def conclude(plan: Plan, records: Mapping[str, Records], targets: Targets, ground_truth: GroundTruth, categories: np.ndarray,
             proposal_nums: Sequence[int]) -> Evaluated:
    """From match records to the evaluated run; the arguments are those of `Evaluated`."""
    report = summarize(plan, records, targets, proposal_nums)
    return Evaluated(report, records, targets, plan, ground_truth, categories, tuple(proposal_nums))
