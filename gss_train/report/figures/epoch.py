"""A small picture of a run after one of its epochs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from torch import Tensor

from gss_train.data import Dataset, PreparedSubject
from gss_train.report.figures.run_panels import (
    add_legend,
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
    has_vote = any(record.vote is not None for record in epochs)
    figure = new_figure(10, 6)
    ratios = (1, 1, 0.9) if has_vote else (1, 1.7)
    pictures, curves, *rest = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    draw_slices(pictures, image, truth, prediction, dataset, level_with_most_tumour(truth))
    last = epochs[-1]
    pictures.suptitle(f"Epoch {last.epoch}, {last.stage}: crop of {subject.name}", fontsize=10)
    _draw_curves(curves, epochs, validations)
    for row in rest:
        axes = row.subplots(1, dataset.num_categories, sharey=True)
        draw_routes(axes, epochs, dataset)
    save_figure(figure, path)


def _draw_curves(curves: SubFigure, epochs: Sequence[EpochRecord], validations: Sequence[ValidationRecord]) -> None:
    total, terms, *rest = curves.subplots(1, 3 if validations else 2)
    numbers = [record.epoch for record in epochs]
    draw_line(total, numbers, [record.terms["total"] for record in epochs], "total", "#000000")
    label_epochs(total, "total loss")
    for number, name in enumerate(name for name in epochs[-1].terms if name != "total"):
        values = [record.terms[name] for record in epochs]
        # A network without this term reports 0.
        if any(values):
            draw_line(terms, numbers, values, name, line_colour(number))
    label_epochs(terms, "loss terms")
    if terms.lines:
        add_legend(terms)
    for axis in rest:
        draw_validations(axis, validations)
    margin = max(0.5, 0.03 * len(numbers))
    for axis in (total, terms, *rest):
        axis.set_xlim(numbers[0] - margin, numbers[-1] + margin)
        _mark_stages(axis, epochs)


def _mark_stages(axis: Axes, epochs: Sequence[EpochRecord]) -> None:
    """Dotted lines between the stages."""
    for before, record in pairwise(epochs):
        if record.stage != before.stage:
            axis.axvline(record.epoch - 0.5, color="#888888", linestyle=":", linewidth=1)
