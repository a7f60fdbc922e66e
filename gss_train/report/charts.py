"""Charts of a report as SVG, to be put into a page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import TypeVar

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from gss_train.report.comparison import Group
from gss_train.report.figures.curves import (
    draw_dice_of_votes,
    draw_line,
    draw_routes,
    label_epochs,
    mark_stages,
    voted,
)
from gss_train.report.figures.style import SCREEN_STYLE, colour_of, new_figure
from gss_train.report.runs import ReportedRun
from gss_train.runs import VoteRecord

_Record = TypeVar("_Record")
_MOST_POINTS = 300
_LINE_STYLES = ("-", "--", ":", "-.")


def training_chart(groups: Sequence[Group]) -> Markup | None:
    """Total loss, the GSS loss and the validation Dice over the epochs: a colour for each group, a line for each run.

    Returns:
        An SVG element; None if no run has noted its training.
    """
    if not any(run.epochs for group in groups for run in group.runs):
        return None
    with _page_figure("training", 3.1) as figure:
        total, gss, dice = figure.subplots(1, 3)
        for number, group in enumerate(groups):
            for place, run in enumerate(group.runs):
                epochs, validations = _thin(run.epochs), _thin(run.validations)
                with_gss = [record for record in epochs if record.vote is not None]
                for axis, numbers, values in (
                    (total, [r.epoch for r in epochs], [r.terms["total"] for r in epochs]),
                    (gss, [r.epoch for r in with_gss], [r.terms["gss"] for r in with_gss]),
                    (dice, [r.epoch for r in validations], [r.mean_dice for r in validations]),
                ):
                    if numbers:
                        label, style = "_" if place else group.label, _LINE_STYLES[place % len(_LINE_STYLES)]
                        draw_line(axis, numbers, values, label, colour_of(number), style=style)
        for axis, title in ((total, "total loss"), (gss, "GSS loss"), (dice, "validation Dice, mean")):
            label_epochs(axis, title)
        dice.set_ylim(0, 1)
        lines, labels = total.get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside upper center", ncols=3, fontsize=8)
        return _to_svg(figure, "training", "Training curves: total loss, GSS loss and validation Dice over the epochs")


def vote_charts(groups: Sequence[Group]) -> list[tuple[str, Markup]]:
    """The name of each run with votes in two validations or more, and what the vote knew over the epochs.

    For each true category the routes that the vote took, and Dice of its target, of each modality and of the fusion.
    """
    charts = []
    for number, run in enumerate(run for group in groups for run in group.runs):
        votes = _thin(voted(run.validations))
        if len(votes) > 1:
            charts.append((run.name, _vote_chart(f"vote{number}", run, votes)))
    return charts


def _vote_chart(name: str, run: ReportedRun, votes: Sequence[tuple[int, VoteRecord]]) -> Markup:
    dataset = run.evaluation.dataset
    with _page_figure(name, 4.4) as figure:
        upper, lower = figure.subfigures(2, 1, squeeze=False)[:, 0]
        routes = upper.subplots(1, dataset.num_categories, sharey=True)
        dice = lower.subplots(1, dataset.num_categories - 1, sharey=True, squeeze=False)[0]
        draw_routes(routes, votes, dataset)
        draw_dice_of_votes(dice, votes, dataset)
        for axis in (*routes, *dice):
            mark_stages(axis, run.epochs)
        title = f"Routes of the vote in each true category, and Dice of target, modalities and fusion: {run.name}"
        return _to_svg(figure, name, title)


def _thin(records: Sequence[_Record]) -> list[_Record]:
    """So few of the records that a chart stays small, evenly, with the last."""
    step = max(1, -(-len(records) // _MOST_POINTS))
    return list(records[::-1][::step][::-1])


@contextmanager
def _page_figure(name: str, height: float) -> Iterator[Figure]:
    with mpl.rc_context({**SCREEN_STYLE, "font.family": "sans-serif", "svg.hashsalt": name}):
        yield new_figure(11, height)


def _to_svg(figure: Figure, name: str, title: str) -> Markup:
    """An element with its own names, so that several of them fit on a page; its texts are escaped."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'((?:xlink:)?href="|url\()#', rf"\g<1>#{name}-", svg)
    opening = (
        r'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        rf'viewBox="\g<1>" aria-label="{escape(title)}">'
    )
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', opening, svg, count=1)
    return Markup(re.sub(r"\s*\n\s*", "\n", svg))  # noqa: S704
