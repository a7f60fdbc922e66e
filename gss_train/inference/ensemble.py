"""Trained networks that predict together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gss_train.common import Triple, UserError, to_triple
from gss_train.data import Dataset
from gss_train.inference.resampling import Spacing, millimetres
from gss_train.runs import TrainedNetwork

# Of every BraTS edition.
_PUBLISHED_SPACING = (1.0, 1.0, 1.0)


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
            UserError: their categories, label values, regions or voxel sizes differ.
        """
        first = members[0]
        trained_spacing = first.dataset.spacing or _PUBLISHED_SPACING
        for other in members[1:]:
            for what in ("categories", "label_values", "regions"):
                ours, others = getattr(first.dataset, what), getattr(other.dataset, what)
                if ours != others:
                    raise UserError(
                        f"--model: {other.origin} has the {what.replace('_', ' ')} {others}, should have {ours} as "
                        f"{first.origin}"
                    )
            found, wanted = millimetres(other.dataset.spacing or _PUBLISHED_SPACING), millimetres(trained_spacing)
            if spacing is None and found != wanted:
                raise UserError(
                    f"--model: {other.origin} was trained on voxels of {found}, should be {wanted} as "
                    f"{first.origin}, unless --spacing is given"
                )
        return cls(tuple(members), first.dataset, spacing or trained_spacing)

    @property
    def minimum_size(self) -> Triple:
        """Voxels per axis that a volume needs: those of the largest window."""
        return to_triple([max(lengths) for lengths in zip(*(m.crop_size for m in self.members), strict=True)])
