"""What the figures share: sizes of a paper's columns, letters, and how files are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from gss_train.common import open_replacing
from gss_train.data import MODALITIES

TWO_COLUMNS_INCHES = 183 / 25.4
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
CATEGORY_COLOURS = ("#000000", "#D55E00", "#009E73", "#56B4E9", "#F0E442", "#CC79A7", "#0072B2", "#E69F00")

_POINTS = 7
_DOTS_PER_INCH = 300
# Any: the stubs of Matplotlib want every key as a literal.
_SETTINGS: Any = {
    "font.size": _POINTS,
    "axes.titlesize": _POINTS,
    "axes.labelsize": _POINTS,
    "xtick.labelsize": _POINTS - 1,
    "ytick.labelsize": _POINTS - 1,
    "legend.fontsize": _POINTS - 1,
    "axes.linewidth": 0.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "gss",
}


@contextmanager
def paper_figure(stem: Path, height: float, padding: float = 0.04) -> Iterator[Figure]:
    """A figure two columns wide, which goes to `<stem>.png` and `<stem>.svg` at the end, each completely or not at all.

    Args:
        stem: of the files.
        height: in inches.
        padding: around each panel, in inches.

    Raises:
        OSError: a file cannot be written; the message names it.
    """
    with mpl.rc_context(_SETTINGS):
        layout = ConstrainedLayoutEngine(w_pad=padding, h_pad=padding, wspace=0, hspace=0)
        figure = Figure(figsize=(TWO_COLUMNS_INCHES, height), layout=layout)
        FigureCanvasAgg(figure)
        yield figure
        for kind, metadata in (("png", None), ("svg", {"Date": None})):
            drawn = BytesIO()
            figure.savefig(drawn, format=kind, dpi=_DOTS_PER_INCH, metadata=metadata)
            with open_replacing(stem.with_name(f"{stem.name}.{kind}")) as file:
                file.write(drawn.getbuffer())


def draw_circles(axis: Axes, subsets: Sequence[Sequence[bool]]) -> None:
    """Below an axis whose columns are subsets, a row for each modality: a filled circle where it is given."""
    for row, modality in enumerate(MODALITIES):
        height = -0.5 - row
        axis.text(-0.8, height, modality, ha="right", va="center", fontsize=_POINTS - 1)
        for column, subset in enumerate(subsets):
            face = "black" if subset[row] else "white"
            axis.plot(column, height, "o", markersize=3.2, markerfacecolor=face, markeredgecolor="black", mew=0.5)
    axis.set_ylim(-len(MODALITIES), 0)
    axis.set_axis_off()
