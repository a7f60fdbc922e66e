"""The prediction of one subject, on the grid of its raw scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gss_train.data import Box, most_probable, resample_values, restore_orientation
from gss_train.inference.scans import RawScans

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What networks say of one subject.

    Attributes:
        scans: of the subject.
        box: what was kept of the grid on which the networks saw them.
        box_probabilities: [C,d,h,w] float32, in that box; elsewhere all is background.
    """

    scans: RawScans
    box: Box
    box_probabilities: Floats

    def probabilities(self) -> Floats:
        """The probabilities of all categories, [D,H,W,C] float32 on the raw file's own grid."""
        shape = (*self.scans.first.voxels.shape, len(self.box_probabilities))
        # In the order of the files.
        probabilities = np.empty(shape, np.float32, order="F")
        grid = self.scans.grid.part(self.box)
        for category, probability in enumerate(self.box_probabilities):
            whole = resample_values(probability, grid, self.scans.first_grid, float(category == 0))
            probabilities[..., category] = restore_orientation(whole, self.scans.first.orientation)
        return probabilities

    def categories(self) -> npt.NDArray[np.uint8]:
        """The most probable category of each voxel, [D,H,W] uint8 on the raw file's own grid."""
        categories = most_probable(self.box_probabilities, self.scans.grid.part(self.box), self.scans.first_grid)
        restored: npt.NDArray[np.uint8] = restore_orientation(categories, self.scans.first.orientation)
        return restored
