"""The prediction of one subject, on the grid of its raw scans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gss_train.data import NormalisedScans, restore_orientation
from gss_train.inference.resampling import Floats, Resampling
from gss_train.inference.scans import RawScans


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

    def probabilities(self) -> Floats:
        """The probabilities of all categories, [D,H,W,C] float32 on the raw file's own grid."""
        shape = (*self.scans.first.voxels.shape, len(self.box_probabilities))
        # In the order of the files.
        probabilities = np.empty(shape, np.float32, order="F")
        for category, probability in enumerate(self._by_category()):
            probabilities[..., category] = probability
        return probabilities

    def categories(self) -> npt.NDArray[np.uint8]:
        """The most probable category of each voxel, [D,H,W] uint8 on the raw file's own grid."""
        probabilities = self._by_category()
        # One after the other: at a tenth of a millimetre, all of them would not fit into memory.
        highest = next(probabilities)
        categories = np.zeros(highest.shape, np.uint8)
        for category, probability in enumerate(probabilities, start=1):
            higher = probability > highest
            categories[higher] = category
            highest[higher] = probability[higher]
        return categories

    def _by_category(self) -> Iterator[Floats]:
        """The probabilities of one category after the other, [D,H,W] on the raw file's own grid."""
        corner = tuple(start for start, _ in self.normalised.box)
        for category, probability in enumerate(self.box_probabilities):
            outside = float(category == 0)
            if self.resampling.is_needed:
                whole = self.resampling.back(probability, corner, outside)
            else:
                whole = np.full(self.resampling.raw_shape, outside, np.float32)
                whole[self.normalised.kept] = probability
            yield restore_orientation(whole, self.scans.first.orientation)
