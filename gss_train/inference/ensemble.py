"""Trained networks that predict together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gss_train.common import UserError
from gss_train.inference.resampling import Spacing, millimetres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gss_train.common import Triple
    from gss_train.data import Dataset
    from gss_train.runs import TrainedNetwork

# Of every BraTS edition.
_PUBLISHED_SPACING = (1.0, 1.0, 1.0)


class EnsembleError(UserError):
    """Networks cannot predict together; the message names the one that differs, and how."""


@dataclass(frozen=True)
class Ensemble:
    """One network or several, of which the probabilities are averaged.

    Attributes:
        members: the networks.
        dataset: what the categories mean, the same for all.
        spacing: voxel size in millimetres that they see.
    """

    members: tuple[TrainedNetwork, ...]
    dataset: Dataset
    spacing: Spacing

    @classmethod
    def of(cls, members: Sequence[TrainedNetwork], spacing: Spacing | None = None) -> Ensemble:
        """Checks that networks can predict together.

        Args:
            members: one or more.
            spacing: voxel size in place of that of the data that they were trained on: what their data set says, else
                1 mm.

        Raises:
            EnsembleError: their categories, label values, regions or voxel sizes differ.
        """
        first = members[0]
        for other in members[1:]:
            for what in ("categories", "label_values", "regions"):
                ours, others = getattr(first.dataset, what), getattr(other.dataset, what)
                if ours != others:
                    raise EnsembleError(
                        f"--model: {other.origin} has the {what.replace('_', ' ')} {others}, should have {ours} as "
                        f"{first.origin}"
                    )
            sizes = [millimetres(_spacing_of(member)) for member in (other, first)]
            if spacing is None and sizes[0] != sizes[1]:
                raise EnsembleError(
                    f"--model: {other.origin} was trained on voxels of {sizes[0]}, should be {sizes[1]} as "
                    f"{first.origin}, unless --spacing is given"
                )
        return cls(tuple(members), first.dataset, spacing or _spacing_of(first))

    @property
    def minimum_size(self) -> Triple:
        """Voxels per axis that a volume needs: those of the largest window."""
        x, y, z = (max(lengths) for lengths in zip(*(member.crop_size for member in self.members), strict=True))
        return x, y, z


def _spacing_of(member: TrainedNetwork) -> Spacing:
    return member.dataset.spacing or _PUBLISHED_SPACING
