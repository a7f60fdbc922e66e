"""Trained networks that predict together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gss_train.common import Triple, UserError, to_triple
from gss_train.data import Dataset, Spacing, box_size, millimetres
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
        grown_size: voxels per axis that the brain's box is grown to, as in their training.
    """

    members: tuple[TrainedNetwork, ...]
    dataset: Dataset
    spacing: Spacing
    grown_size: Triple

    @classmethod
    def of(cls, members: Sequence[TrainedNetwork], spacing: Spacing | None = None) -> Ensemble:
        """Checks that networks can predict together.

        Args:
            members: one or more.
            spacing: voxel size in place of that of their training: what scans were brought to, else what their data
                set says, else 1 mm.

        Raises:
            UserError: their categories, label values, regions or voxel sizes differ.
        """
        first = members[0]
        trained_spacing = _trained_spacing(first)
        for other in members[1:]:
            for what in ("categories", "label_values", "regions"):
                ours, others = getattr(first.dataset, what), getattr(other.dataset, what)
                if ours != others:
                    raise UserError(
                        f"--model: {other.origin} has the {what.replace('_', ' ')} {others}, should have {ours} as "
                        f"{first.origin}"
                    )
            found, wanted = millimetres(_trained_spacing(other)), millimetres(trained_spacing)
            if spacing is None and found != wanted:
                raise UserError(
                    f"--model: {other.origin} was trained on voxels of {found}, should be {wanted} as "
                    f"{first.origin}, unless --spacing is given"
                )
        boxes = [box_size(spacing or member.spacing) for member in members]
        return cls(tuple(members), first.dataset, spacing or trained_spacing, _largest(boxes))

    @property
    def minimum_size(self) -> Triple:
        """Voxels per axis that a volume needs: those of the largest window."""
        return _largest([member.crop_size for member in self.members])


def _trained_spacing(network: TrainedNetwork) -> Spacing:
    return network.spacing or network.dataset.spacing or _PUBLISHED_SPACING


def _largest(sizes: Sequence[Triple]) -> Triple:
    """Along each axis."""
    return to_triple([max(lengths) for lengths in zip(*sizes, strict=True)])
