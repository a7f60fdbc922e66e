"""One picture of a run: scans, truth and prediction side by side, the loss curves and the vote."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from gss_kernels import ROUTES
from gss_train.data import MODALITIES, Dataset, PreparedSubject
from gss_train.engine.training import EpochRecord

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = ("#000000", "#D55E00", "#009E73", "#56B4E9", "#F0E442", "#CC79A7", "#0072B2", "#E69F00")
_ROUTE_COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#BBBBBB")
_MODALITY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_CURVES = ("total", "fused", "separate", "auxiliary", "gss")


def save_summary(
    path: Path,
    subject: PreparedSubject,
    image: Tensor,
    truth: Tensor,
    prediction: Tensor,
    dataset: Dataset,
    epochs: Sequence[EpochRecord],
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
    """
    votes = [record for record in epochs if record.vote is not None]
    figure = Figure(figsize=(14, 9.2 if votes else 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    ratios = (1, 1.05, 1.05) if votes else (1, 1.05)
    pictures, curves, *rest = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
    tumour = (truth > 0).sum(dim=(0, 1))
    level = int(tumour.argmax()) if tumour.any() else truth.shape[2] // 2
    axes = pictures.subplots(1, len(MODALITIES) + 2)
    for axis, name, scan in zip(axes, MODALITIES, image, strict=False):
        _show(axis, name, scan[:, :, level].numpy(), "gray")
    palette = list(islice(chain(_COLOURS, cycle(_COLOURS[1:])), dataset.num_categories))
    colours = ListedColormap(palette)
    for axis, name, labels in zip(axes[-2:], ("truth", "prediction"), (truth, prediction), strict=True):
        _show(axis, name, labels[:, :, level].numpy(), colours, dataset.num_categories - 0.5)
    handles = [
        Patch(color=colour, label=name) for colour, name in zip(palette[1:], dataset.categories[1:], strict=True)
    ]
    axes[-1].legend(handles=handles, loc="lower right", fontsize=7, framealpha=0.8)
    pictures.suptitle(f"{subject.name}, axial slice {_raw_slice(subject, level)} of the scan", fontsize=10)
    _draw_curves(curves.subplots(1, len(_CURVES)), epochs)
    for votes_row in rest:
        _draw_vote(votes_row.subplots(1, dataset.num_categories + 1), votes, dataset)
    figure.savefig(path, dpi=100)


def _raw_slice(subject: PreparedSubject, level: int) -> int:
    """Where a slice of the prepared volume lies in the raw one."""
    metadata = subject.metadata
    return level - metadata.padding[2][0] + metadata.box[2][0]


def _show(
    axis: Axes, name: str, plane: np.ndarray, colours: str | ListedColormap, highest: float | None = None
) -> None:
    """One axial plane `[x, y]`, shown with the face upwards."""
    lowest = None if highest is None else -0.5
    axis.imshow(plane.T, cmap=colours, vmin=lowest, vmax=highest, origin="upper", interpolation="nearest")
    axis.set_title(name, fontsize=9)
    axis.set_axis_off()


def _draw_curves(axes: Sequence[Axes], epochs: Sequence[EpochRecord]) -> None:
    for axis, name in zip(axes, _CURVES, strict=True):
        for number, stage in enumerate(dict.fromkeys(record.stage for record in epochs)):
            points = [(record.epoch, record.terms[name]) for record in epochs if record.stage == stage]
            if any(value for _, value in points):
                axis.plot(*zip(*points, strict=True), marker=".", color=f"C{number}", label=stage)
        _label_curves(axis, f"{name} loss")
    axes[0].legend(fontsize=7)


def _draw_vote(axes: Sequence[Axes], epochs: Sequence[EpochRecord], dataset: Dataset) -> None:
    """Per category the shares of the voxels by route, stacked; then how far each modality agrees with the target."""
    numbers = [record.epoch for record in epochs]
    routes = np.array([record.vote["routes"] for record in epochs if record.vote is not None])
    agreement = np.array([record.vote["agreement"] for record in epochs if record.vote is not None])
    for category, axis in enumerate(axes[:-1]):
        bottom = np.zeros(len(numbers))
        for route, (name, colour) in enumerate(zip(ROUTES, _ROUTE_COLOURS, strict=True)):
            height = routes[:, category, route]
            axis.bar(numbers, height, bottom=bottom, width=1.0, color=colour, label=name)
            bottom += height
        axis.set_ylim(0, 1)
        _label_curves(axis, f"routes of {dataset.categories[category]}")
    axes[0].legend(fontsize=7, loc="lower left", framealpha=0.8)
    for modality, name in enumerate(MODALITIES):
        axes[-1].plot(numbers, agreement[:, modality], marker=".", color=_MODALITY_COLOURS[modality], label=name)
    axes[-1].legend(fontsize=7)
    _label_curves(axes[-1], "agreement with the target")


def _label_curves(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("epoch", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
