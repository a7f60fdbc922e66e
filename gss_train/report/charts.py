"""Charts of a report as SVG, to be put into a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from io import StringIO
from typing import Literal, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gss_train.data import Dataset
from gss_train.report.comparison import Group
from gss_train.report.figures.run_panels import (
    draw_agreement,
    draw_line,
    draw_routes,
    label_epochs,
    line_colour,
    new_figure,
)
from gss_train.runs import EpochRecord, ValidationRecord

_Record = TypeVar("_Record", EpochRecord, ValidationRecord)
_MOST_POINTS = 300
_LineStyle = Literal["-", "--", ":", "-."]
_LINE_STYLES: tuple[_LineStyle, ...] = ("-", "--", ":", "-.")


def training_chart(groups: Sequence[Group]) -> str | None:
    """Total loss, the GSS loss and the validation Dice over the epochs: a colour for each group, a line for each run.

    Returns:
        An SVG element; None if no run has noted its training.
    """
    if not any(run.epochs for group in groups for run in group.runs):
        return None
    with _page_figure(11, 3.1) as figure:
        total, gss, dice = figure.subplots(1, 3)
        for number, group in enumerate(groups):
            for place, run in enumerate(group.runs):
                label = group.label if place == 0 else "_"
                look = (line_colour(number), _LINE_STYLES[place % len(_LINE_STYLES)])
                epochs = _thin(run.epochs)
                _draw(total, [r.epoch for r in epochs], [r.terms["total"] for r in epochs], label, look)
                voted = [record for record in epochs if record.vote is not None]
                _draw(gss, [r.epoch for r in voted], [r.terms["gss"] for r in voted], label, look)
                validations = _thin(run.validations)
                _draw(dice, [r.epoch for r in validations], [r.mean_dice for r in validations], label, look)
        for axis, title in ((total, "total loss"), (gss, "GSS loss"), (dice, "validation Dice, mean")):
            label_epochs(axis, title)
        dice.set_ylim(0, 1)
        lines, labels = total.get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
        return _to_svg(figure, "training", "Training curves: total loss, GSS loss and validation Dice over the epochs")


def vote_chart(name: str, epochs: Sequence[EpochRecord], dataset: Dataset, number: int) -> str | None:
    """How the vote of GSS was decided, for each category over the epochs, and how far the modalities agree with it.

    Args:
        name: of the run.
        epochs: of the run.
        dataset: for the categories' names.
        number: of the chart on the page.

    Returns:
        An SVG element; None if there was no vote.
    """
    voted = _thin([record for record in epochs if record.vote is not None])
    if not voted:
        return None
    # Where epochs are left out, those that are shown move together, and the ticks name them.
    shown = [replace(record, epoch=place) for place, record in enumerate(voted)]
    names = FuncFormatter(lambda place, _: str(voted[round(place)].epoch) if 0 <= round(place) < len(voted) else "")
    with _page_figure(11, 2.5) as figure:
        *routes, agreement = figure.subplots(1, dataset.num_categories + 1)
        draw_routes(routes, shown, dataset)
        draw_agreement(agreement, shown)
        for axis in (*routes, agreement):
            axis.xaxis.set_major_formatter(names)
        title = f"Routes of the vote by category, and agreement with the target: {name}"
        return _to_svg(figure, f"vote{number}", title)


def _thin(records: Sequence[_Record]) -> list[_Record]:
    """So few of the records that a chart stays small, evenly, with the last."""
    step = max(1, -(-len(records) // _MOST_POINTS))
    return list(records[::-1][::step][::-1])


def _draw(
    axis: Axes, epochs: Sequence[int], values: Sequence[float | None], label: str, look: tuple[str, _LineStyle]
) -> None:
    if epochs:
        colour, style = look
        draw_line(axis, epochs, values, label, colour)
        axis.get_lines()[-1].set_linestyle(style)


@contextmanager
def _page_figure(width: float, height: float) -> Iterator[Figure]:
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        yield new_figure(width, height)


def _to_svg(figure: Figure, name: str, title: str) -> str:
    """An element with its own names, so that several of them fit on a page."""
    text = StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'((?:xlink:)?href="|url\()#', rf"\g<1>#{name}-", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _opening(title), svg, count=1)
    return re.sub(r"\s*\n\s*", "\n", svg)


def _opening(title: str) -> str:
    label = escape(title, quote=True)
    return (
        r'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        rf'viewBox="\g<1>" aria-label="{label}">'
    )
