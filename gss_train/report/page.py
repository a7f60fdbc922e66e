"""Puts a report together: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gss_train.common import open_replacing
from gss_train.data import MODALITIES
from gss_train.evaluation import MEASURES
from gss_train.report.charts import training_chart, vote_charts
from gss_train.report.comparison import Group, compare, group_runs
from gss_train.report.runs import ReportedRun, read_runs
from gss_train.report.tables import (
    difference_table,
    origin_rows,
    published_tables,
    score_tables,
    setting_rows,
    speed_rows,
)
from gss_train.report.viewer import viewer_data
from gss_train.report.vote_tables import vote_tables

_ASSETS = Path(__file__).parent / "assets"
_FEW_SUBJECTS = 20


def write_report(
    path: Path, folders: Sequence[Path], *, title: str | None = None, viewer_subjects: int = 3
) -> list[ReportedRun]:
    """Write the page that compares runs, completely or not at all.

    Args:
        path: of the page.
        folders: of finished runs, or of evaluations; one at least.
        title: of the page; by default what is compared.
        viewer_subjects: how many subjects can be looked at slice by slice.

    Returns:
        What the page shows.

    Raises:
        UserError: a run cannot be read; the message names the file.
        OSError: the page cannot be written.
    """
    runs = read_runs(folders)
    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html")
    html = page.render(_content(runs, group_runs(runs), title, viewer_subjects))
    with open_replacing(path) as file:
        file.write(html.encode())
    return runs


def _content(
    runs: Sequence[ReportedRun], groups: Sequence[Group], title: str | None, viewer_subjects: int
) -> dict[str, Any]:
    differences, reasons = compare(groups)
    different, common = setting_rows(groups)
    return {
        "title": title or _title(groups),
        "groups": groups,
        "runs": runs,
        "caveats": [*_caveats(runs), *reasons],
        "modalities": MODALITIES,
        "tables": score_tables(groups),
        "origins": origin_rows(groups),
        "published": published_tables(groups),
        "others": [group.label for group in groups if group.columns != groups[0].columns],
        "differences": [(difference, difference_table(difference)) for difference in differences],
        "training": training_chart(groups),
        "vote_charts": vote_charts(groups),
        "vote_tables": vote_tables(groups),
        "speed": speed_rows(runs),
        "configured": [group.label for group in groups if group.first.settings],
        "different": different,
        "common": common,
        "environments": [(run.name, sorted(_plain(run.environment).items())) for run in runs if run.environment],
        "viewer": _json(_viewer(groups, viewer_subjects)),
        "css": Markup(_read("report.css") + _read("viewer.css")),  # noqa: S704  (our own files)
        "javascript": Markup(_read("viewer.js")),  # noqa: S704
        "dice": MEASURES["dice"],
    }


def _title(groups: Sequence[Group]) -> str:
    networks = dict.fromkeys(group.first.network for group in groups)
    datasets = dict.fromkeys(group.first.evaluation.dataset.title for group in groups)
    return f"{', '.join(networks)} on {', '.join(datasets)}: {', '.join(group.label for group in groups)}"


def _caveats(runs: Sequence[ReportedRun]) -> list[str]:
    """What a reader has to know before believing a number."""
    said = []
    if any(run.is_phantom for run in runs):
        said.append("The subjects are simulated: the scores show that the software works, and say nothing of patients.")
    fewest = min(len(run.evaluation.scores.subjects) for run in runs)
    if fewest < _FEW_SUBJECTS:
        said.append(f"There are {fewest} test subjects only: intervals over so few are too narrow.")
    if any(run.settings.get("run.preset") == "quick" for run in runs):
        said.append("Preset quick trains small networks for minutes: published trainings take days.")
    if len({run.evaluation.dataset.title for run in runs}) > 1:
        said.append("The runs are of different data sets.")
    return said


def _viewer(groups: Sequence[Group], most_subjects: int) -> dict[str, Any] | None:
    """Of each group the first run, as all have the same subjects."""
    shown = {group.label: group.first for group in groups if group.first.segmented}
    return viewer_data(shown, most_subjects) if shown and most_subjects > 0 else None


def _json(values: dict[str, Any] | None) -> Markup | None:
    """JSON that cannot end the element that it is in."""
    if values is None:
        return None
    return Markup(json.dumps(values, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704


def _plain(environment: dict[str, Any]) -> dict[str, str]:
    flat = {**environment, **environment.get("packages", {})}
    return {name: str(value) for name, value in flat.items() if name != "packages" and value is not None}


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
