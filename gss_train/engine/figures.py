"""One picture of a run: scans, truth and prediction side by side, and the loss curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from gss_train.data import MODALITIES, Dataset, PreparedSubject
from gss_train.engine.training import EpochRecord

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = ("#000000", "#D55E00", "#009E73", "#56B4E9", "#F0E442")
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
    figure = Figure(figsize=(14, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    pictures, curves = figure.subfigures(2, 1, height_ratios=(1, 1.05), squeeze=False)[:, 0]
    tumour = (truth > 0).sum(dim=(0, 1))
    level = int(tumour.argmax()) if tumour.any() else truth.shape[2] // 2
    axes = pictures.subplots(1, len(MODALITIES) + 2)
    for axis, name, scan in zip(axes, MODALITIES, image, strict=False):
        _show(axis, name, scan[:, :, level].numpy(), "gray")
    colours = ListedColormap(_COLOURS[: dataset.num_categories])
    for axis, name, labels in zip(axes[-2:], ("truth", "prediction"), (truth, prediction), strict=True):
        _show(axis, name, labels[:, :, level].numpy(), colours, dataset.num_categories - 0.5)
    handles = [
        Patch(color=colour, label=name) for colour, name in zip(_COLOURS[1:], dataset.categories[1:], strict=False)
    ]
    axes[-1].legend(handles=handles, loc="lower right", fontsize=7, framealpha=0.8)
    pictures.suptitle(f"{subject.name}, axial slice {_raw_slice(subject, level)} of the scan", fontsize=10)
    _draw_curves(curves.subplots(1, len(_CURVES)), epochs)
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
        axis.set_title(f"{name} loss", fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
