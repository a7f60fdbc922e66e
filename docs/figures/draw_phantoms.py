"""Draws the figures of docs/phantom.md: `python docs/figures/draw_phantoms.py`, about a minute.

One simulated subject of full size for each data set, written in the data set's raw layout and read again as a user's
files would be; the axial slice with most tumour.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gss_train.data import DATASETS, MODALITIES, Dataset, find_subjects, read_volume
from gss_train.phantom import generate_phantoms

SIZE = (240, 240, 155)
# Another subject for each data set.
SEEDS = {"brats2015": 0, "brats2018": 1, "brats2020": 2}
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {"BG": "#000000", "NCR": "#d55e00", "NET": "#56b4e9", "NCR/NET": "#d55e00", "ED": "#009e73", "ET": "#f0e442"}


def draw(dataset: Dataset, root: Path, picture: Path) -> None:
    """Draw the first subject of a phantom data set: four modalities and the label."""
    subject = find_subjects(root, dataset)[0]
    if subject.label is None:
        raise ValueError(f"{subject.name}: has no label, need one to draw")
    images = {name: read_volume(path).voxels for name, path in subject.images.items()}
    raw_label = read_volume(subject.label).voxels
    label = np.searchsorted(dataset.label_values, raw_label)
    level = int((label > 0).sum(axis=(0, 1)).argmax())
    brain = np.any([image > 0 for image in images.values()], axis=0)[:, :, level]
    x, y = np.flatnonzero(brain.any(axis=1)), np.flatnonzero(brain.any(axis=0))
    shown = (slice(x[0] - 3, x[-1] + 4), slice(y[0] - 3, y[-1] + 4), level)

    figure = Figure(figsize=(10, 2.9), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(MODALITIES) + 1)
    for axis, name in zip(axes, MODALITIES, strict=False):
        brightest = float(np.percentile(images[name][images[name] > 0], 99.7))
        _show(axis, name, images[name][shown], "gray", brightest)
    colours = [COLOURS[category] for category in dataset.categories]
    _show(axes[-1], "label", label[shown], ListedColormap(colours), len(colours) - 0.5, 0.5)
    patches = [Patch(color=colour, label=name) for colour, name in zip(colours, dataset.categories, strict=True)]
    axes[-1].legend(
        handles=patches[1:],
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=4,
        fontsize=7,
        frameon=False,
        handlelength=0.8,
        columnspacing=0.8,
        handletextpad=0.3,
    )
    figure.suptitle(dataset.title, fontsize=10)
    figure.savefig(picture, dpi=100, metadata={"Software": None})


def _show(
    axis: Axes,
    title: str,
    plane: npt.NDArray[np.number],
    colours: str | ListedColormap,
    top: float,
    margin: float = 0.0,
) -> None:
    # Rows run from front to back and columns from the subject's right to left, as radiologists look at them.
    axis.imshow(plane.T, cmap=colours, vmin=-margin, vmax=top, interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


def main() -> int:
    """Write a picture for each data set next to this file, or into the folder given."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, seed in SEEDS.items():
        with tempfile.TemporaryDirectory() as root:
            generate_phantoms(name, Path(root), 1, seed, SIZE)
            draw(DATASETS[name], Path(root), folder / f"phantom_{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
