"""The files of a prediction: label map, probabilities and log, which appear together or not at all."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gss_train.common import UserError, open_replacing
from gss_train.inference.volume_files import VOLUME_ENDINGS, write_volumes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gss_train.inference.prediction import Prediction


class OutputError(UserError):
    """A file is in the way, or has a name that says no known format; the message names it."""


@dataclass(frozen=True)
class Outputs:
    """Where a prediction goes.

    Attributes:
        label_map: `.nii.gz`, `.nii` or `.mha`.
        with_probabilities: whether there is a file of them too.
    """

    label_map: Path
    with_probabilities: bool

    def __post_init__(self) -> None:
        if not self.label_map.name.endswith(VOLUME_ENDINGS) or not self._stem:
            raise OutputError(f"--output: got {self.label_map}, need a name that ends with {', '.join(VOLUME_ENDINGS)}")

    @property
    def ending(self) -> str:
        """Of the label map's name, one of `VOLUME_ENDINGS`."""
        return next(ending for ending in VOLUME_ENDINGS if self.label_map.name.endswith(ending))

    @property
    def probabilities(self) -> Path | None:
        """The file of the probabilities, where there is to be one."""
        name = f"{self._stem}_probabilities{self.ending}"
        return self.label_map.with_name(name) if self.with_probabilities else None

    @property
    def log(self) -> Path:
        """The file that says how the label map came about."""
        return self.label_map.with_name(f"{self._stem}.json")

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [path for path in (self.label_map, self.probabilities, self.log) if path is not None]

    @property
    def _stem(self) -> str:
        return self.label_map.name.removesuffix(self.ending)

    def check(self, inputs: Iterable[Path], *, overwrite: bool) -> None:
        """Looks whether the files can be written, before hours are spent on what they are to hold.

        Raises:
            OutputError: a file is there already and is not to be replaced, or it is one of the inputs.
        """
        sources = {path.resolve() for path in inputs}
        for path in self.files:
            if path.resolve() in sources:
                raise OutputError(f"{path}: is one of the scans, need another --output")
            if path.is_dir():
                raise OutputError(f"{path}: is a folder, should be a file; need another --output")
            if path.exists() and not overwrite:
                raise OutputError(f"{path}: is there already; --overwrite replaces it")

    def write(self, prediction: Prediction, label_map: npt.NDArray[Any], log: Mapping[str, Any]) -> None:
        """Writes all files.

        Args:
            prediction: for the probabilities and the grid.
            label_map: from `to_label_values`.
            log: JSON values.

        Raises:
            OSError: a file cannot be written; none is then there, and what they were to replace still is.
        """
        grid = prediction.scans.grid
        with ExitStack() as stack:
            # They get their names in the opposite order: where the label map is, all is.
            file = stack.enter_context(open_replacing(self.label_map))
            write_volumes(file, self.ending, [label_map], grid.shape, label_map.dtype, grid.affine)
            if self.probabilities is not None:
                file = stack.enter_context(open_replacing(self.probabilities))
                shape = (*grid.shape, len(prediction.box_probabilities))
                write_volumes(file, self.ending, prediction.probabilities(), shape, np.float32, grid.affine)
            file = stack.enter_context(open_replacing(self.log))
            file.write((json.dumps(log, indent=2, allow_nan=False) + "\n").encode())


def to_label_values(categories: npt.NDArray[np.uint8], label_values: tuple[int, ...]) -> npt.NDArray[Any]:
    """Turns category indices into the values of the data set's label files, uint8 where these fit, else uint16."""
    kind = np.uint8 if max(label_values) <= np.iinfo(np.uint8).max else np.uint16
    return np.asarray(label_values, kind)[categories]
