from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gss_kernels import ROUTES
from gss_train.common.errors import UserError
from gss_train.evaluation import write_evaluation
from gss_train.evaluation.metrics import SCORES
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.report import write_report
from gss_train.report.__main__ import main
from gss_train.report.comparison import compare, group_runs
from gss_train.report.runs import read_runs
from tests.gss_train.report.made_up import published_evaluation, scores_of, settings_of, write_run


class Page(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._caption: str | None = None
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href", "action", "data"}:
                self.targets.append(value or "")
        self._open.append(tag)
        if tag == "caption":
            self._caption = ""
        elif tag == "tr" and self._caption:
            self.tables.setdefault(self._caption, []).append([])
        elif tag in {"td", "th"} and self._caption:
            self.tables[self._caption][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "table":
            self._caption = None

    def handle_data(self, data: str) -> None:
        if "caption" in self._open:
            self._caption = (self._caption or "") + data
        elif self._caption and {"td", "th"} & set(self._open) and "small" not in self._open:
            self.tables[self._caption][-1][-1] += data.strip()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(folder / f"{arm}-{seed}", settings_of(arm, seed), scores_of(seed, gain=gain), ("a", "b"))
        for seed in (0, 1)
        for arm, gain in (("baseline", 0.0), ("gss", 0.25))
    ]


@pytest.fixture(scope="module")
def written(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, runs)
    return path


@pytest.fixture(scope="module")
def text(written: Path) -> str:
    return written.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_needs_nothing_else(page: Page, text: str) -> None:
    for target in page.targets:
        assert target.startswith(("#", "data:"))
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    # Names of vocabularies, which are not fetched.
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in text


def test_names_of_elements_are_unique_and_links_lead_somewhere(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets if target.startswith("#")} <= set(page.ids)


def test_the_table_has_the_means_over_subjects_and_seeds(page: Page) -> None:
    rows = page.tables["Dice (%)"][4:]
    both = (scores_of(0), scores_of(1))
    for place, region in enumerate(both[0].names):
        baseline, gss = rows[2 * place : 2 * place + 2]
        means = sum(scores.mean[:, place] for scores in both) / 2
        overall = sum(scores.overall[place] for scores in both).item() / 2
        expected = [f"{100 * value:.1f}" for value in [*means.tolist(), overall]]
        assert baseline == [region, "baseline", *expected]
        assert gss[0] == "GSS"
        assert float(gss[-1]) == pytest.approx(float(expected[-1]) + 25, abs=0.11)


def test_the_differences_are_marked_where_the_interval_excludes_nothing(page: Page) -> None:
    rows = page.tables["Dice (%), GSS minus baseline"][4:]
    assert [row[0] for row in rows] == ["WT", "TC", "ET", "ET post-processed"]
    for row in rows:
        assert row[1:] == ["+25.0*"] * 16


def test_the_summary_says_what_was_compared_and_what_it_is_worth(text: str) -> None:
    words = re.sub(r"<[^>]+>", "", text)
    assert "GSS against baseline, on 3 subjects" in re.sub(r"\s+", " ", words)
    assert (
        "ET: +25.0 (95 % interval over subjects +25.0 to +25.0, excludes 0); standard deviation over seeds 0.0" in words
    )
    assert "The subjects are simulated" in words
    assert "There are 3 test subjects only" in words


def test_the_summary_says_where_an_interval_includes_nothing(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / arm, settings_of(arm, 0), scores_of(seed)) for arm, seed in (("baseline", 0), ("gss", 1))
    ]
    ((difference,), _) = compare(group_runs(read_runs(folders)))
    assert not difference.is_clear[-1].all()
    write_report(tmp_path / "report.html", folders)
    words = re.sub(r"<[^>]+>", "", (tmp_path / "report.html").read_text(encoding="utf-8"))
    for name, clear in zip(SCORES, difference.is_clear[-1], strict=True):
        (line,) = re.findall(rf"^{name}: .*over subjects.*$", words, flags=re.MULTILINE)
        assert ("excludes 0" in line) == clear
        assert ("includes 0" in line) != clear


def test_training_votes_speed_and_settings_are_shown(text: str) -> None:
    assert text.count("<svg") == 1 + 4
    for shown in (
        "routes in true ET",
        "Dice of ED, led by FLAIR, T2",
        "total loss",
        "2.50",
        "training.gss",
        "CPU, 2 threads",
    ):
        assert shown in text


def test_what_the_vote_knew_is_compared(page: Page) -> None:
    """Over seeds 0 and 1, in per cent: targets of 50 and 51 and of 75 and 76, best modalities of 62.5 and 61.5."""
    header, *rows = page.tables["Dice (%) of the voted target, of the fusion and of each modality"]
    assert header[1:] == ["target \N{MINUS SIGN} best modality", "target", "fusion", "FLAIR", "T1ce", "T1", "T2"]
    assert [row[0] for row in rows[::2]] == ["NCR/NET, led by T1ce", "ED, led by FLAIR, T2", "ET, led by T1ce"]
    for baseline, gss in zip(rows[::2], rows[1::2], strict=True):
        assert baseline[1:] == ["baseline", "\N{MINUS SIGN}11.5", "50.5", "87.5", "25.0", "62.0", "-", "37.5"]
        assert gss == ["GSS", "+13.5", "75.5", "87.5", "25.0", "62.0", "-", "37.5"]
    header, *rows = page.tables["Routes of the vote (% of the voxels that truly are of a category)"]
    assert header[1:] == list(ROUTES)
    assert rows[0][0] == "BG, led by FLAIR"
    for baseline, gss in zip(rows[::2], rows[1::2], strict=True):
        assert (baseline[2:], gss[1:]) == (["50.0", "25.0", "12.5", "12.5"],) * 2


def test_one_validation_is_in_the_tables_of_the_vote_and_not_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", settings_of("gss", 0), scores_of(0))
    change_validations(run, lambda records: records[1:])
    write_report(tmp_path / "report.html", [run])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Routes of the vote (% of the voxels that truly are of a category)" in Page(text).tables
    assert text.count("<svg") == 1  # the training's


def test_runs_of_earlier_versions_are_shown_without_the_vote(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", settings_of("gss", 0), scores_of(0))
    change_validations(
        run, lambda records: [{key: record[key] for key in record if key != "vote"} for record in records]
    )
    write_report(tmp_path / "report.html", [run])
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "training" in found.ids
    assert "vote" not in found.ids
    assert "#vote" not in found.targets


def change_validations(run: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    metrics = run / "metrics.jsonl"
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    others = [record for record in records if record["kind"] != "validation"]
    changed = change([record for record in records if record["kind"] == "validation"])
    metrics.write_text("".join(f"{json.dumps(record)}\n" for record in [*others, *changed]), encoding="utf-8")


def test_the_same_runs_give_the_same_page(runs: list[Path], written: Path, tmp_path: Path) -> None:
    write_report(tmp_path / "again.html", runs)
    assert (tmp_path / "again.html").read_bytes() == written.read_bytes()


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    name = '<script>alert(1)<|script> & "quotes"'
    run = write_run(tmp_path / name, settings_of("gss", 0), scores_of(0, ("</script><b>",)), ("a",))
    write_report(tmp_path / "report.html", [run], title="<i>title</i>")
    found = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in found
    assert "</script><b>" not in found
    assert "<i>" not in found
    # The viewer's data and the viewer.
    assert found.count("</script>") == 2


def test_an_evaluation_without_a_run_is_shown_without_what_it_lacks(runs: list[Path], tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", [runs[0] / "evaluation"])
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "scores" in page.ids
    assert not {"training", "settings", "differences"} & set(page.ids)


def test_how_scores_came_about_is_shown(page: Page, text: str) -> None:
    header, *rows = page.tables["How the scores came about"]
    assert header == ["", "baseline", "GSS"]
    assert rows[0] == ["Subjects", *["3 (test)"] * 2]
    assert ["Weights", *["last, after the last step"] * 2] in rows
    # These made-up evaluations say no more.
    assert [row[0] for row in rows] == ["Subjects", "Weights", "ET"]
    assert "beside published averages" not in text


def test_published_averages_are_beside_scores_of_the_published_test_subjects(tmp_path: Path) -> None:
    own = published_evaluation("brats2018", "published-1", (0.9, 0.8, 0.6, 0.65))
    other = dataclasses.replace(own, settings={**own.settings, "trained_as_published": False})
    for name, evaluation in (("own", own), ("other", other)):
        (tmp_path / name).mkdir()
        write_evaluation(tmp_path / name, evaluation)
    write_report(tmp_path / "report.html", [tmp_path / "own", tmp_path / "other"])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    tables = {title: rows for title, rows in Page(text).tables.items() if "beside published" in title}
    ((title, rows),) = tables.items()
    assert title.startswith("own beside published averages: Dice (%), mean of 15 subsets, published split 1 of 3")
    assert rows[0] == ["", "WT", "TC", "ET", "ET post-processed", "source"]
    assert rows[1] == ["own", "90.00", "80.00", "60.00", "65.00", "own"]
    assert [row[0] for row in rows[2:]] == ["U-HVED", "RobustSeg", "RFNet", "RFNet + GSS", "DeMoSeg"]
    assert rows[4] == ["RFNet", "85.67", "76.53", "57.12", "", "RFNet's paper (ICCV 2021)"]
    assert "<td>57.12<small>+2.88</small></td>" in text
    assert "these scores are of one of them" in text


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda run: None, "no such folder, need that of a finished run"),
        (lambda run: run.mkdir(), "has no scores; if it is that of a run: python -m gss_train.evaluate "),
    ],
    ids=["missing", "unfinished"],
)
def test_what_is_no_finished_run_is_said(
    prepare, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path / "run")
    assert main([str(tmp_path / "run"), "--output", str(tmp_path / "report.html")]) == 2
    assert f"error: {tmp_path / 'run'}: {message}" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("metrics.jsonl", '{"kind": "epoch"}\n'), ("config.json", "[]"), ("evaluation/scores.json", "{}")],
)
def test_damaged_files_are_named(name: str, content: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", settings_of("gss", 0), scores_of(0))
    (run / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(str(run / name))):
        write_report(tmp_path / "report.html", [run])


def test_the_command_writes_figures_where_they_are_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = scores_of(0)
    scores = SubsetScores(scores.subjects, ("WT",), {"dice": scores.dice[..., :1]})
    run = write_run(tmp_path / "run", settings_of("gss", 0), scores)
    arguments = [str(run), "--output", str(tmp_path / "r.html"), "--figures", str(tmp_path / "figures")]
    assert main([*arguments, "--viewer-subjects", "0"]) == 0
    assert f"Report: {tmp_path / 'r.html'}" in capsys.readouterr().out
    assert (tmp_path / "figures" / "heat-map-dice.svg").exists()
