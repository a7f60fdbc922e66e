"""What all figures share: colours that colour-blind readers can tell apart, letters, sizes, how files are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine, LayoutEngine
from PIL import Image

from gss_train.common import open_replacing
from gss_train.data import Dataset
from gss_train.evaluation import MEASURES

Floats = npt.NDArray[np.float64]

# Okabe and Ito's palette.
_BLUE, _VERMILION, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_ORANGE, _SKY, _YELLOW, BLACK = "#E69F00", "#56B4E9", "#F0E442", "#000000"
_LINES = (_BLUE, _VERMILION, _GREEN, _PURPLE, _ORANGE, _SKY, "#999999", BLACK)
_TUMOUR = (_VERMILION, _GREEN, _SKY, _YELLOW, _PURPLE, _BLUE, _ORANGE)
ROUTE_COLOURS = (_BLUE, _SKY, _ORANGE, "#BBBBBB")
HEAT = mpl.colormaps["cividis"]
# Where near black and white text are read equally well, by the relative luminance of WCAG 2.
_EQUAL_LUMINANCE = 0.192

# Any, as in the styles below: the stubs of Matplotlib want every key as a literal.
_ALL: Any = {"legend.frameon": False, "svg.fonttype": "none"}
SCREEN_STYLE: Any = {
    **_ALL,
    "figure.titlesize": 10,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
}
_PAPER_STYLE: Any = {
    **_ALL,
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "axes.linewidth": 0.5,
    "svg.hashsalt": "gss",
}
TWO_COLUMNS_INCHES = 183 / 25.4
_PAPER_DOTS_PER_INCH = 300


def colour_of(number: int) -> str:
    """The colour of a curve, or of a run's bars, by its place among them."""
    return _LINES[number % len(_LINES)]


def category_colours(dataset: Dataset) -> list[str]:
    """A colour for each category, black for the background."""
    return [BLACK, *islice(cycle(_TUMOUR), dataset.num_categories - 1)]


def heat(values: Floats, measure: str) -> Floats:
    """How good scores are among each other, from 0 for the worst to 1 for the best; NaN where there is none."""
    lowest, highest = np.nanmin(values), np.nanmax(values)
    if lowest == highest:
        return np.where(np.isnan(values), np.nan, 1.0)
    shares: Floats = (values - lowest) / (highest - lowest)
    return 1 - shares if MEASURES[measure].lower_is_better else shares


def text_colour(background: Sequence[float]) -> str:
    """Near black or white, whichever is read better on a colour, of red, green and blue from 0 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#111111" if luminance > _EQUAL_LUMINANCE else "#ffffff"


def new_figure(width: float, height: float, layout: LayoutEngine | None = None) -> Figure:
    """A figure of so many inches, of 100 dots each, that is drawn without a window."""
    figure = Figure(figsize=(width, height), dpi=100, layout=layout or "constrained")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def run_figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of a run, which goes to a PNG at the end: completely or not at all, whenever the process is killed.

    Args:
        path: of the PNG.
        width: in hundreds of pixels.
        height: likewise.

    Raises:
        OSError: the file cannot be written; what stood there before still does.
    """
    with mpl.rc_context(SCREEN_STYLE):
        figure = new_figure(width, height)
        yield figure
        drawn = BytesIO()
        figure.savefig(drawn, format="png")
    with Image.open(drawn) as picture, open_replacing(path) as file:
        # Runs have as many figures as epochs: with a palette they are half as large and look the same.
        picture.convert("RGB").quantize(256).save(file, format="png")


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
    with mpl.rc_context(_PAPER_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=padding, h_pad=padding, wspace=0, hspace=0)
        figure = new_figure(TWO_COLUMNS_INCHES, height, layout)
        yield figure
        for kind, metadata in (("png", None), ("svg", {"Date": None})):
            drawn = BytesIO()
            figure.savefig(drawn, format=kind, dpi=_PAPER_DOTS_PER_INCH, metadata=metadata)
            with open_replacing(stem.with_name(f"{stem.name}.{kind}")) as file:
                file.write(drawn.getbuffer())
            # Where everything lies is worked out once, which takes longer than to draw it.
            figure.set_layout_engine("none")


def add_legend(axis: Axes, handles: Sequence[Artist] | None = None) -> None:
    """A legend beside the panel, where it covers nothing."""
    axis.legend(
        handles=axis.get_legend_handles_labels()[0] if handles is None else handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        handlelength=1.2,
    )
