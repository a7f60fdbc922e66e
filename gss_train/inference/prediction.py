"""From raw scans to the probabilities of every category, and to a label map, on the scans' own grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from gss_train.common import to_triple
from gss_train.data import PUBLISHED_BOX, NormalisedScans, normalise_scans, restore_orientation
from gss_train.inference.resampling import Resampling
from gss_train.inference.segmentation import mean_probabilities
from gss_train.inference.windows import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gss_train.common import Triple
    from gss_train.inference.ensemble import Ensemble
    from gss_train.inference.scans import RawScans

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What networks say of one subject.

    Attributes:
        scans: of the subject.
        resampling: between the scans' grid and that on which the networks saw them.
        normalised: what they saw, on that grid.
        box_probabilities: [C,d,h,w] float32, in the box that was kept; elsewhere all is background.
    """

    scans: RawScans
    resampling: Resampling
    normalised: NormalisedScans
    box_probabilities: Floats

    def probabilities(self) -> Iterator[Floats]:
        """The probabilities of one category after the other, each [D,H,W] float32 on the raw file's own grid."""
        for probability in self._upright():
            yield restore_orientation(probability, self.scans.grid.orientation)

    def categories(self) -> npt.NDArray[np.uint8]:
        """The most probable category of each voxel, [D,H,W] uint8 on the raw file's own grid."""
        probabilities = self._upright()
        # One after the other: at a tenth of a millimetre, all of them would not fit into memory.
        highest = next(probabilities)
        categories = np.zeros(highest.shape, np.uint8)
        for category, probability in enumerate(probabilities, start=1):
            higher = probability > highest
            categories[higher] = category
            highest[higher] = probability[higher]
        return restore_orientation(categories, self.scans.grid.orientation)

    def _upright(self) -> Iterator[Floats]:
        """As `probabilities`, in the orientation of `reorient`."""
        corner = tuple(start for start, _ in self.normalised.box)
        for category, probability in enumerate(self.box_probabilities):
            outside = float(category == 0)
            if self.resampling.is_needed:
                yield self.resampling.back(probability, corner, outside)
            else:
                whole = np.full(self.resampling.raw_shape, outside, np.float32)
                whole[self.normalised.kept] = probability
                yield whole


def segment(
    ensemble: Ensemble,
    scans: RawScans,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
    *,
    weighting: Literal["uniform", "gaussian"] = "uniform",
    flips: bool = False,
    grown_size: Triple = PUBLISHED_BOX,
) -> Prediction:
    """Segments a subject from the scans that there are.

    The networks see what a preparation for training makes of the scans: the same box, z-scores and rounding.

    Args:
        ensemble: the networks, on `device`.
        scans: from `read_scans`.
        device: to compute on.
        progress: called with the number of finished windows and that of all windows.
        weighting: of a window's probabilities, see `SlidingWindow`.
        flips: whether to average over the eight ways to flip the axes.
        grown_size: voxels per axis that the brain's box is grown to where the volume allows.

    Raises:
        ResamplingError: scans of another voxel size would have too many voxels.
    """
    shape = to_triple(next(iter(scans.voxels.values())).shape)
    resampling = Resampling(shape, scans.spacing, ensemble.spacing)
    voxels: dict[str, npt.NDArray[Any]] = scans.voxels
    if resampling.is_needed:
        voxels = {modality: resampling.scan(scan) for modality, scan in voxels.items()}
    normalised = normalise_scans(voxels, ensemble.minimum_size, grown_size)
    image = np.moveaxis(normalised.voxels["image"], -1, 0).astype(np.float32)
    members = [(member.network, SlidingWindow(member.crop_size, weighting, flips)) for member in ensemble.members]
    probabilities = mean_probabilities(members, torch.from_numpy(image).to(device), scans.available, progress)
    in_box = probabilities[:, *normalised.unpadded].cpu().numpy()
    return Prediction(scans, resampling, normalised, in_box)
