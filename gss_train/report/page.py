"""Puts a report together: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gss_train.common import UserError, open_replacing
from gss_train.evaluation import TITLES
from gss_train.report.charts import training_chart, vote_chart
from gss_train.report.comparison import Group, compare, group_runs
from gss_train.report.runs import ReportedRun, read_runs
from gss_train.report.tables import (
    difference_table,
    score_tables,
    setting_rows,
    speed_rows,
    subject_rows,
    summary_rows,
)
from gss_train.report.viewer import viewer_data

_ASSETS = Path(__file__).parent / "assets"
_FEW_SUBJECTS = 20


def write_report(path: Path, runs: Sequence[Path], *, title: str | None = None, viewer_subjects: int = 3) -> None:
    """Write the page that compares runs, completely or not at all.

    Args:
        path: of the page.
        runs: folders of finished runs, or of evaluations; one at least.
        title: of the page; by default what is compared.
        viewer_subjects: how many subjects can be looked at slice by slice.

    Raises:
        UserError: a run cannot be read; the message names the file.
        OSError: the page cannot be written.
    """
    if not runs:
        raise UserError("RUN: got none, need the folder of one run or more")
    reported = read_runs(runs)
    groups = group_runs(reported)
    html = _template().render(_content(reported, groups, title, viewer_subjects))
    with open_replacing(path) as file:
        file.write(html.encode())


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _content(
    runs: Sequence[ReportedRun], groups: Sequence[Group], title: str | None, viewer_subjects: int
) -> dict[str, Any]:
    differences, reasons = compare(groups)
    different, common = setting_rows(groups)
    return {
        "title": title or _title(groups),
        "groups": groups,
        "runs": runs,
        "summary": summary_rows(differences),
        "caveats": [*_caveats(runs), *reasons],
        "tables": score_tables(groups),
        "others": _without_table(groups),
        "differences": [(difference, difference_table(difference)) for difference in differences],
        "training": _markup(training_chart(groups)),
        "votes": _votes(groups),
        "speed": speed_rows(runs),
        "configured": [group.label for group in groups if group.first.settings],
        "different": different,
        "common": common,
        "environments": [(run.name, sorted(_plain(run.environment).items())) for run in runs if run.environment],
        "subjects": [(run.name, run.evaluation.scores.names, subject_rows(run)) for run in runs],
        "viewer": _json(_viewer(groups, viewer_subjects)),
        "css": Markup(_read("report.css") + _read("viewer.css")),  # noqa: S704  (our own files)
        "javascript": Markup(_read("viewer.js")),  # noqa: S704
        "dice": TITLES["dice"],
    }


def _title(groups: Sequence[Group]) -> str:
    titles, networks = (
        ", ".join(dict.fromkeys(names))
        for names in (
            [group.first.evaluation.dataset.title for group in groups],
            [group.first.network for group in groups],
        )
    )
    return f"{networks} on {titles}: {', '.join(group.label for group in groups)}"


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


def _without_table(groups: Sequence[Group]) -> list[str]:
    """Groups that the tables leave out, as their regions or subsets are others."""
    first = groups[0].first.evaluation.scores
    return [
        group.label
        for group in groups
        if (group.first.evaluation.scores.names, group.first.evaluation.scores.subsets) != (first.names, first.subsets)
    ]


def _votes(groups: Sequence[Group]) -> list[tuple[str, Markup]]:
    """Of each run that had a vote, its name and a chart."""
    runs = [run for group in groups for run in group.runs]
    charts = [vote_chart(run.name, run.epochs, run.evaluation.dataset, number) for number, run in enumerate(runs)]
    return [
        (run.name, markup) for run, chart in zip(runs, charts, strict=True) if (markup := _markup(chart)) is not None
    ]


def _viewer(groups: Sequence[Group], most_subjects: int) -> dict[str, Any] | None:
    """Of each group the first run, as all have the same subjects."""
    shown = [(group.label, group.first) for group in groups if group.first.segmented]
    if not shown or most_subjects == 0:
        return None
    data: dict[str, Any] = viewer_data(
        [(label, run.evaluation.dataset, run.evaluation.scores.subsets, run.segmented) for label, run in shown],
        most_subjects,
    )
    return data


def _json(values: dict[str, Any] | None) -> Markup | None:
    """JSON that cannot end the element that it is in."""
    if values is None:
        return None
    return Markup(json.dumps(values, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704


def _markup(svg: str | None) -> Markup | None:
    return None if svg is None else Markup(svg)  # noqa: S704  (its texts are escaped)


def _plain(environment: dict[str, Any]) -> dict[str, str]:
    flat = {**environment, **environment.get("packages", {})}
    return {name: str(value) for name, value in flat.items() if name != "packages" and value is not None}


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
