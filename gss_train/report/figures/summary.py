"""One picture of a run: scans, truth and prediction side by side, the loss curves, validation and the vote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from torch import Tensor

from gss_train.data import Dataset, PreparedSubject
from gss_train.report.figures.run_panels import (
    draw_agreement,
    draw_line,
    draw_routes,
    draw_slices,
    draw_validations,
    label_epochs,
    level_with_most_tumour,
    line_colour,
    new_figure,
    save_figure,
)
from gss_train.runs import EpochRecord, ValidationRecord

_CURVES = ("total", "fused", "separate", "auxiliary", "gss")


def save_summary(
    path: Path,
    subject: PreparedSubject,
    image: Tensor,
    truth: Tensor,
    prediction: Tensor,
    dataset: Dataset,
    epochs: Sequence[EpochRecord],
    validations: Sequence[ValidationRecord] = (),
) -> None:
    """Draw the summary of a run to a PNG.

    Args:
        path: of the PNG.
        subject: shown on its axial slice with most tumour.
        image: `[4, D, H, W]`.
        truth: `[D, H, W]` category indices.
        prediction: likewise, from all modalities.
        dataset: for category names.
        epochs: the training curves.
        validations: likewise.

    Raises:
        OSError: the file cannot be written; what stood there before still does.
    """
    votes = [record for record in epochs if record.vote is not None]
    figure = new_figure(14, 9.2 if votes else 6.4)
    ratios = (1, 1.05, 1.05) if votes else (1, 1.05)
    pictures, curves, *rest = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    level = level_with_most_tumour(truth)
    draw_slices(pictures, image, truth, prediction, dataset, level)
    pictures.suptitle(f"{subject.name}, axial slice {_raw_slice(subject, level)} of the scan", fontsize=10)
    axes = curves.subplots(1, len(_CURVES) + bool(validations))
    _draw_losses(axes[: len(_CURVES)], epochs)
    stages = axes[0].get_lines()
    if stages:
        curves.legend(handles=stages, loc="outside upper center", ncols=len(stages), fontsize=8, frameon=False)
    if validations:
        draw_validations(axes[-1], validations)
    for row in rest:
        *routes, agreement = row.subplots(1, dataset.num_categories + 1)
        draw_routes(routes, votes, dataset)
        draw_agreement(agreement, votes)
    save_figure(figure, path)


def _raw_slice(subject: PreparedSubject, level: int) -> int:
    """Where a slice of the prepared volume lies in the raw one."""
    metadata = subject.metadata
    return level - metadata.padding[2][0] + metadata.box[2][0]


def _draw_losses(axes: Sequence[Axes], epochs: Sequence[EpochRecord]) -> None:
    """A panel for each term, in it a curve for each stage."""
    for axis, name in zip(axes, _CURVES, strict=True):
        for number, stage in enumerate(dict.fromkeys(record.stage for record in epochs)):
            records = [record for record in epochs if record.stage == stage]
            values = [record.terms[name] for record in records]
            if any(values):
                draw_line(axis, [record.epoch for record in records], values, stage, line_colour(number))
        label_epochs(axis, f"{name} loss")
