"""Predicts one subject after the other: from raw scans to a label map and what belongs to it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gss_train.common import UserError, show_progress
from gss_train.config import ComputedPrecision
from gss_train.data import Subject, millimetres, normalise_scans, padding_to
from gss_train.inference.ensemble import Ensemble
from gss_train.inference.log import describe, region_millilitres
from gss_train.inference.outputs import Outputs
from gss_train.inference.precision import pick_precision
from gss_train.inference.prediction import Prediction
from gss_train.inference.scans import RawScans, read_scans
from gss_train.inference.segmentation import Member, Progress, mean_probabilities
from gss_train.inference.windows import SlidingWindow, Weighting


@dataclass(frozen=True)
class Predictor:
    """Networks, and how they are used.

    Attributes:
        ensemble: the networks.
        device: that they are on.
        weighting: of a window's probabilities, see `SlidingWindow`.
        flips: whether to average over the eight ways to flip the axes.
        one_grid: whether the scans of a subject have to be on one grid as they are.
        precision: that all networks compute in, where the device has it; None: each in that of its training, or float32
            where that is not known.
    """

    ensemble: Ensemble
    device: torch.device
    weighting: Weighting = "uniform"
    flips: bool = False
    one_grid: bool = True
    precision: ComputedPrecision | None = None

    @property
    def asked_precisions(self) -> tuple[ComputedPrecision, ...]:
        """That each network shall compute in."""
        return tuple(self.precision or member.precision or "float32" for member in self.ensemble.members)

    @property
    def precisions(self) -> tuple[ComputedPrecision, ...]:
        """That each network computes in."""
        return tuple(pick_precision(asked, self.device) for asked in self.asked_precisions)

    def read(self, subject: Subject) -> RawScans:
        """Read scans, and warn of what is doubtful about them.

        Raises:
            UserError: they cannot be used.
        """
        scans = read_scans(subject, self.ensemble.dataset, self.ensemble.spacing, one_grid=self.one_grid)
        for warning in scans.warnings:
            print(f"WARNING: {warning}", file=sys.stderr, flush=True)
        for note in self._notes(scans):
            print(f"{scans.name}: {note}", flush=True)
        return scans

    def predict(self, scans: RawScans, outputs: Outputs, progress: Progress) -> None:
        """Segment scans, and write what comes of it.

        Args:
            scans: from `read`.
            outputs: the files to write.
            progress: called with the number of finished windows and that of all windows.

        Raises:
            OSError: a file cannot be written; none of them is there.
        """
        started = time.monotonic()
        dataset, affine = self.ensemble.dataset, scans.first.affine
        prediction = self._segment(scans, progress)
        categories = prediction.categories()
        volumes = region_millilitres(categories, dataset, affine)
        settings = {
            "weighting": self.weighting,
            "flips": self.flips,
            "device": str(self.device),
            "seconds": round(time.monotonic() - started, 1),
        }
        log = describe(prediction, self.ensemble, self.precisions, outputs, volumes, self._notes(scans), settings)
        label_map = np.array(dataset.label_values, np.min_scalar_type(max(dataset.label_values)))[categories]
        probabilities = None if outputs.probabilities is None else prediction.probabilities()
        outputs.write(label_map, probabilities, affine, log)
        shown = ", ".join(f"{region} {volume:.1f} ml" for region, volume in volumes.items())
        print(f"{outputs.label_map}: {shown}", flush=True)

    def predict_all(self, subjects: Sequence[tuple[Subject, Outputs]], folder: Path) -> bool:
        """Read and predict the subjects of a folder; those whose scans cannot be used are said and left out.

        Args:
            subjects: each with the files to write.
            folder: where these lie, for the message at the end.

        Returns:
            Whether all were predicted.

        Raises:
            OSError: a file cannot be written; subjects before are kept.
        """
        bad = []
        with show_progress("predicting") as meter:
            for done, (subject, outputs) in enumerate(subjects):
                meter(done, len(subjects))

                def progress(window: int, windows: int, done: int = done, name: str = subject.name) -> None:
                    meter(done, len(subjects), f"{name}: window {window} of {windows}")

                try:
                    self.predict(self.read(subject), outputs, progress)
                except UserError as error:
                    bad.append(subject.name)
                    print(f"error: {subject.name} left out: {error}", file=sys.stderr, flush=True)
            meter(len(subjects), len(subjects))
        print(f"Predicted {len(subjects) - len(bad)} of {_count(len(subjects))} in {folder}", flush=True)
        if bad:
            print(f"error: {_count(len(bad))} not predicted: {', '.join(bad)}", file=sys.stderr, flush=True)
        return not bad

    def _segment(self, scans: RawScans, progress: Progress) -> Prediction:
        """The networks see what a preparation for training makes of the scans: the same box, z-scores and rounding."""
        grown_size = self.ensemble.grown_size
        normalised = normalise_scans(scans.voxels, grown_size)
        padding = padding_to(self.ensemble.minimum_size, normalised.box, scans.grid.shape, grown_size)
        image = torch.from_numpy(normalised.image(padding).astype(np.float32))
        members = [
            Member(member.network, SlidingWindow(member.crop_size, self.weighting, self.flips), precision)
            for member, precision in zip(self.ensemble.members, self.precisions, strict=True)
        ]
        probabilities = mean_probabilities(members, image.to(self.device), scans.available, progress)
        lengths = zip(padding, normalised.voxels.shape, strict=True)
        unpadded = [slice(before, before + length) for (before, _), length in lengths]
        in_box = probabilities[:, *unpadded].cpu().numpy()
        return Prediction(scans, normalised.kept, in_box)

    def _notes(self, scans: RawScans) -> list[str]:
        notes = []
        if scans.missing:
            notes.append(f"{', '.join(scans.missing)} missing, segmented from {', '.join(scans.files)} alone")
        raw, seen_as = (millimetres(grid.spacing) for grid in (scans.first_grid, scans.grid))
        if not scans.grid.is_same(scans.first_grid):
            notes.append(f"scans of {raw}, resampled to {seen_as}, and the probabilities back")
        elif scans.resampled:
            notes.append(f"{', '.join(scans.resampled)} resampled to the grid of the first scan, of {seen_as}")
        seen = [str(m.origin) for m in self.ensemble.members if scans.name in m.training_subjects]
        if seen:
            notes.append(f"trained on this subject: {', '.join(seen)}; the label map is no sample of new patients'")
        return notes


def _count(subjects: int) -> str:
    return f"{subjects} subject{'s' * (subjects != 1)}"
