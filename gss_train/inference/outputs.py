"""The files of a prediction: label map, probabilities and log, which appear together or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gss_train.common import UserError, open_replacing
from gss_train.data import VOLUME_ENDINGS, write_volume


@dataclass(frozen=True)
class Outputs:
    """Where the prediction of one subject goes.

    Attributes:
        label_map: `.nii.gz`, `.nii` or `.mha`.
        probabilities: those of all categories, where they are to be written.
        log: says how the label map came about.
    """

    label_map: Path
    probabilities: Path | None
    log: Path

    @classmethod
    def at(cls, label_map: Path, *, with_probabilities: bool) -> Outputs:
        """Names the other files after the label map.

        Raises:
            UserError: its name says no known format.
        """
        ending = next((ending for ending in VOLUME_ENDINGS if label_map.name.endswith(ending)), "")
        stem = label_map.name.removesuffix(ending)
        if not (ending and stem):
            raise UserError(f"--output: got {label_map}, need a name that ends with {', '.join(VOLUME_ENDINGS)}")
        probabilities = label_map.with_name(f"{stem}_probabilities{ending}") if with_probabilities else None
        return cls(label_map, probabilities, label_map.with_name(f"{stem}.json"))

    def check(self, inputs: Iterable[Path], *, overwrite: bool) -> None:
        """Looks whether the files can be written, before hours are spent on what they are to hold.

        Raises:
            UserError: a file is there already and is not to be replaced, or it is one of the inputs.
        """
        sources = {path.resolve() for path in inputs}
        for path in filter(None, (self.label_map, self.probabilities, self.log)):
            if path.resolve() in sources:
                raise UserError(f"{path}: is one of the scans, need another --output")
            if path.is_dir():
                raise UserError(f"{path}: is a folder, should be a file; need another --output")
            if path.exists() and not overwrite:
                raise UserError(f"{path}: is there already; --overwrite replaces it")

    def write(
        self,
        label_map: npt.NDArray[Any],
        probabilities: npt.NDArray[np.float32] | None,
        affine: npt.NDArray[np.float64],
        log: Mapping[str, Any],
    ) -> None:
        """Writes all files.

        Args:
            label_map: [D,H,W] values of the data set's label files.
            probabilities: [D,H,W,C], where there is to be a file of them.
            affine: of the grid of both.
            log: JSON values.

        Raises:
            OSError: a file cannot be written; none is then there, and what they were to replace still is.
        """
        volumes = [(self.label_map, label_map), (self.probabilities, probabilities)]
        with ExitStack() as stack:
            # They get their names in the opposite order: where the label map is, all is.
            for path, voxels in volumes:
                if path is not None and voxels is not None:
                    write_volume(stack.enter_context(open_replacing(path)), path.name, voxels, affine)
            file = stack.enter_context(open_replacing(self.log))
            file.write((json.dumps(log, indent=2, allow_nan=False) + "\n").encode())
