"""Pictures of a run: a small one after each of some epochs, and the summary at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from torch import Tensor

from gss_train.data import Dataset, PreparedSubject, millimetres
from gss_train.report.figures.curves import (
    draw_dice_of_votes,
    draw_line,
    draw_routes,
    draw_validations,
    label_epochs,
    mark_stages,
    voted,
)
from gss_train.report.figures.slices import draw_slices, level_with_most_tumour
from gss_train.report.figures.style import BLACK, add_legend, colour_of, run_figure
from gss_train.runs import EpochRecord, ValidationRecord

_CURVES = ("total", "fused", "separate", "auxiliary", "gss")


def save_epoch_figure(
    path: Path,
    subject: PreparedSubject,
    image: Tensor,
    truth: Tensor,
    prediction: Tensor,
    dataset: Dataset,
    epochs: Sequence[EpochRecord],
    validations: Sequence[ValidationRecord],
) -> None:
    """Draw how a run stands to a PNG of 1000 x 600 pixels.

    Args:
        path: of the PNG.
        subject: that the crop is of.
        image: a crop's scans `[4, d, h, w]`, shown on its axial slice with most tumour.
        truth: its category indices `[d, h, w]`.
        prediction: likewise.
        dataset: for category names.
        epochs: the run so far; one at least.
        validations: likewise, perhaps none.

    Raises:
        OSError: the file cannot be written; what stood there before still does.
    """
    votes = voted(validations)
    ratios = (1, 1, 0.9) if votes else (1, 1.7)
    last = epochs[-1]
    with run_figure(path, 10, 6) as figure:
        pictures, curves, *rest = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
        draw_slices(pictures, image, truth, prediction, dataset, level_with_most_tumour(truth.numpy()))
        pictures.suptitle(f"Epoch {last.epoch}, {last.stage}: crop of {subject.name}")
        _draw_curves(curves, epochs, validations)
        for row in rest:
            axes = row.subplots(1, dataset.num_categories - 1, sharey=True, squeeze=False)[0]
            draw_dice_of_votes(axes, votes, dataset)
            _frame(axes, epochs)


def _draw_curves(curves: SubFigure, epochs: Sequence[EpochRecord], validations: Sequence[ValidationRecord]) -> None:
    total, terms, *rest = curves.subplots(1, 3 if validations else 2)
    numbers = [record.epoch for record in epochs]
    draw_line(total, numbers, [record.terms["total"] for record in epochs], "total", BLACK)
    label_epochs(total, "total loss")
    for number, name in enumerate(name for name in epochs[-1].terms if name != "total"):
        values = [record.terms[name] for record in epochs]
        # A network without this term reports 0.
        if any(values):
            draw_line(terms, numbers, values, name, colour_of(number))
    label_epochs(terms, "loss terms")
    if terms.lines:
        add_legend(terms)
    for axis in rest:
        draw_validations(axis, validations)
    _frame((total, terms, *rest), epochs)


def _frame(axes: Sequence[Axes], epochs: Sequence[EpochRecord]) -> None:
    """The same epochs in all panels, with their stages."""
    margin = max(0.5, 0.03 * len(epochs))
    for axis in axes:
        axis.set_xlim(epochs[0].epoch - margin, epochs[-1].epoch + margin)
        mark_stages(axis, epochs)


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
    """Draw the summary of a run to a PNG; arguments and errors as of `save_epoch_figure`, of a whole subject."""
    votes = voted(validations)
    ratios = (1, 1.05, 1.05, 1.05) if votes else (1, 1.05)
    level, metadata = level_with_most_tumour(truth.numpy()), subject.metadata
    # Where it lies in the whole volume, and in which: that of the files, or what it was brought to.
    whole_level = level - subject.padding[2][0] + metadata.box[2][0]
    whole = "the scan" if metadata.recipe.spacing is None else f"the scan at {millimetres(metadata.spacing)}"
    with run_figure(path, 14, 12 if votes else 6.4) as figure:
        pictures, curves, *rest = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
        draw_slices(pictures, image, truth, prediction, dataset, level)
        pictures.suptitle(f"{subject.name}, axial slice {whole_level} of {whole}")
        axes = curves.subplots(1, len(_CURVES) + bool(validations))
        _draw_losses(axes[: len(_CURVES)], epochs)
        stages = axes[0].get_lines()
        if stages:
            curves.legend(handles=stages, loc="outside upper center", ncols=len(stages), fontsize=8)
        if validations:
            draw_validations(axes[-1], validations)
        if votes:
            routes, dice = (
                row.subplots(1, count, sharey=True, squeeze=False)[0]
                for row, count in zip(rest, (dataset.num_categories, dataset.num_categories - 1), strict=True)
            )
            draw_routes(routes, votes, dataset)
            draw_dice_of_votes(dice, votes, dataset)
            _frame((*routes, *dice), epochs)


def _draw_losses(axes: Sequence[Axes], epochs: Sequence[EpochRecord]) -> None:
    """A panel for each term, in it a curve for each stage."""
    for axis, name in zip(axes, _CURVES, strict=True):
        for number, stage in enumerate(dict.fromkeys(record.stage for record in epochs)):
            records = [record for record in epochs if record.stage == stage]
            values = [record.terms[name] for record in records]
            if any(values):
                draw_line(axis, [record.epoch for record in records], values, stage, colour_of(number))
        label_epochs(axis, f"{name} loss")
