"""The curves and figures of a run for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gss_train.common import UserError
from gss_train.data import MODALITIES
from gss_train.runs import EpochRecord, StepRecord, ValidationRecord


class ScalarWriter:
    """Writes records to TensorBoard's event files; values that are None are left out.

    Args:
        folder: of the event files; made when missing, and shared with those that the run wrote before it was stopped.
        step: optimiser steps that the run has taken, 0 for a new one. What earlier files hold of later steps is hidden
            by TensorBoard: a run that was killed wrote it after the checkpoint that it now goes on from.

    Raises:
        UserError: the package tensorboard is not installed.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an optional package, and a slow import)
        except ImportError as error:
            raise UserError(
                f"tensorboard: cannot be imported ({error}); install it with `pip install tensorboard`, "
                "or do without with --no-tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write_steps(self, record: StepRecord) -> None:
        """Loss terms, learning rate, weight of the GSS loss, gradient norm, skipped steps, speed and memory."""
        self._write(record.step, {f"loss/{term}": value for term, value in record.terms.items()})
        self._write(
            record.step,
            {
                "training/learning rate": record.learning_rate,
                "training/GSS weight": record.gss_weight,
                "training/gradient norm": record.gradient_norm,
                "training/skipped steps": record.skipped_steps,
                "speed/samples per second": record.samples_per_second,
                "memory/peak in MB": record.peak_memory_mb,
            },
        )

    def write_epoch(self, record: EpochRecord) -> None:
        """The agreement of each modality with the target, where there was a vote."""
        if record.vote is None:
            return
        agreement = zip(MODALITIES, record.vote["agreement"], strict=True)
        self._write(record.step, {f"agreement/{modality}": share for modality, share in agreement})

    def write_stage_validation(self, record: ValidationRecord) -> None:
        """Mean Dice, and that of each region by the modalities given, at the end of a stage."""
        self._write_dice(record, "stage validation")

    def write_validation(self, record: ValidationRecord) -> None:
        """Mean Dice, that of each region by the modalities given, and what the vote knows.

        Of the vote the shares of its routes in each true category, and for each category Dice of the target, of each
        modality and of the fusion.
        """
        self._write_dice(record, "validation")
        if record.vote is None:
            return
        for category, routes in record.vote.routes.items():
            shares = {f"routes in true {_one_part(category)}/{route}": share for route, share in routes.items()}
            self._write(record.step, shares)
        for name, dice in record.vote.dice.items():
            self._write(record.step, {f"vote Dice of {_one_part(key)}/{name}": value for key, value in dice.items()})

    def write_figure(self, step: int, path: Path) -> None:
        """A PNG, as the figure of a step."""
        from matplotlib.image import imread  # noqa: PLC0415  (the training alone must do without Matplotlib)

        self._writer.add_image("epoch", imread(path)[..., :3], step, dataformats="HWC")

    def flush(self) -> None:
        """Have everything written to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.close()

    def _write_dice(self, record: ValidationRecord, group: str) -> None:
        self._write(record.step, {f"{group}/mean Dice": record.mean_dice})
        for subset, scores in record.dice.items():
            self._write(record.step, {f"{group}/{name}/{subset}": value for name, value in scores.items()})

    def _write(self, step: int, values: Mapping[str, float | None]) -> None:
        for tag, value in values.items():
            if value is not None:
                self._writer.add_scalar(tag, value, step)


def _one_part(name: str) -> str:
    """TensorBoard takes a slash for the end of a group's name."""
    return name.replace("/", "+")
