"""What a process keeps of the images that it has matched, joined over batches and processes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .accumulate import Records, no_records
from .image_matcher import Candidates, ImageMatcher
from .reporting.pictures import no_table


class MatchedImages(NamedTuple):
    """Match records of some images.

    Args:
        images: Positions of the images, also of those without detections, shape (M,) int64.
        shown: The detections to draw, see `pictures.shown_table`.
        inverted: Positions of those images where a box has x2 < x1 or y2 < y1, int64.
        records: By IoU type, with positions in 32 bits, see `Records.narrow`.
    """

    images: Tensor
    shown: Tensor
    inverted: Tensor
    records: dict[str, Records]

    def tensors(self) -> list[Tensor]:
        """Everything as a list."""
        return [self.images, self.shown, self.inverted, *(column for table in self.records.values() for column in table)]

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], iou_types: Sequence[str]) -> 'MatchedImages':
        """The inverse of `tensors`."""
        width = len(Records._fields)
        first = len(tensors) - width * len(iou_types)
        return cls(*tensors[:first], {iou_type: Records(*tensors[first + width * number:first + width * (number + 1)])
                                      for number, iou_type in enumerate(iou_types)})


def match_images(matcher: ImageMatcher, candidates: Sequence[Mapping[str, Candidates]]) -> MatchedImages:
    """Match images together, by each IoU type; of an image that is there twice, the first.

    Args:
        matcher: What took the candidates.
        candidates: For each image its candidates by IoU type, at least one image.
    """
    by_image: dict[int, Mapping[str, Candidates]] = {}
    for entry in candidates:
        by_image.setdefault(next(iter(entry.values())).image, entry)
    records = {iou_type: matcher.match([entry[iou_type] for entry in by_image.values()]).narrow()
               for iou_type in candidates[0]}
    device = next(iter(records.values())).image.device
    shown, inverted = no_table().to(device), torch.empty(0, dtype=torch.int64, device=device)
    if 'bbox' in records:
        with_boxes = [entry['bbox'] for entry in by_image.values()]
        shown, inverted = matcher.shown(with_boxes), matcher.inverted(with_boxes)
    return MatchedImages(torch.tensor(list(by_image), dtype=torch.int64, device=device), shown, inverted, records)


def join_once(parts: Sequence[MatchedImages], iou_types: Sequence[str], num_columns: int, num_images: int) -> MatchedImages:
    """One from several, on the device of the last, with the records of each image from the first part that has it.

    Args:
        parts: Each has an image at most once.
        iou_types: The IoU types of the parts.
        num_columns: Columns of the records, for the empty tables that no parts give.
        num_images: I.
    """
    device = parts[-1].images.device if parts else torch.device('cpu')
    nothing = {iou_type: no_records(num_columns).narrow() for iou_type in iou_types}
    no_images = torch.empty(0, dtype=torch.int64)
    kept = [MatchedImages(no_images, no_table(), no_images, nothing)]
    is_new = torch.ones(num_images, dtype=torch.bool, device=device)
    for part in parts:
        part = MatchedImages.from_tensors([column.to(device) for column in part.tensors()], iou_types)
        kept.append(MatchedImages(part.images[is_new[part.images]], part.shown[is_new[part.shown[:, 0].long()]],
                                  part.inverted[is_new[part.inverted]],
                                  {name: table.select(is_new[table.image.long()]) for name, table in part.records.items()}))
        is_new[part.images] = False
    columns = zip(*(part.tensors() for part in kept), strict=True)
    return MatchedImages.from_tensors([torch.cat([part.to(device) for part in column]) for column in columns], iou_types)
