"""From what pytest wrote to one JSON file, and from such files to the page; all numbers are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.collect_results import collect
from benchmarks.results_page import main, write_page
from benchmarks.results_table import Result, ratios
from tests.benchmarks.made_up import write_run


def test_collected_run_has_card_versions_outcomes_and_figures(tmp_path: Path) -> None:
    write_run(tmp_path)
    result = collect(tmp_path, "loss")
    assert result["command"] == "bash benchmarks/gpu.sh loss"
    assert result["card"]["name"] == "Made-up Card"
    assert result["card"]["copy_gb_per_s"] == 777
    assert result["versions"]["torch"] == "2.0"
    assert result["tests"] == {
        "exit_status": 1,
        "passed": 1,
        "failed": 1,
        "errors": 0,
        "skipped": 1,
        "failed_names": ["tests.gpu.test_made_up::test_bad"],
        "skip_reasons": ["no reason"],
    }
    (group,) = result["groups"]
    (triton,) = group["results"]
    assert group["group"] == "made-up loss"
    assert triton["name"] == "triton"
    assert triton["rounds"] == 5
    assert triton["percent_of_copy"] == 33.333


def test_collected_run_has_no_raw_times(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert "data" not in json.dumps(collect(tmp_path, "loss"))


def test_run_that_broke_off_is_collected_as_far_as_it_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "benchmarks.status").write_text("124\n", encoding="utf-8")
    monkeypatch.setattr(machine, "card", lambda: {"name": "Made-up Card"})
    result = collect(tmp_path, "networks")
    assert result["card"] == {"name": "Made-up Card"}
    assert result["tests"] is None
    assert result["benchmarks"]["exit_status"] == 124
    assert result["groups"] == []


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with one result file."""
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run")
    folder = tmp_path / "results"
    folder.mkdir()
    result = json.dumps(collect(tmp_path / "run", "loss"))
    (folder / "made-up-card-loss.json").write_text(result, encoding="utf-8")
    return folder


def test_page_has_what_the_file_has(tmp_path: Path, results: Path) -> None:
    assert write_page(results, tmp_path / "docs" / "results.md")
    page = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    assert "## Made-up Card\n" in page
    assert "### `bash benchmarks/gpu.sh loss`" in page
    assert "Driver 1.2.3, runtime 4.5, 66 GB of memory." in page
    assert "python 3.0, torch 2.0, triton not installed, numpy 1.0." in page
    assert "Device-to-device copy: 777 GB/s" in page
    assert "Tests: 1 passed, 1 failed, 1 skipped; not passed: `tests.gpu.test_made_up::test_bad`." in page
    assert "|  | wall ms | gpu ms | % of copy | eager / this |\n| --- | ---: | ---: | ---: | ---: |" in page
    assert "| triton | 222 | 111 | 33.3 | 4 |" in page


def test_page_is_the_same_again(tmp_path: Path, results: Path) -> None:
    write_page(results, tmp_path / "one.md")
    write_page(results, tmp_path / "two.md")
    assert (tmp_path / "one.md").read_bytes() == (tmp_path / "two.md").read_bytes()


def test_without_results_nothing_is_written_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "results.md"
    monkeypatch.setattr("sys.argv", ["results_page", "--results", str(tmp_path), "--page", str(page)])
    main()
    assert "nothing written" in capsys.readouterr().out
    assert not page.parent.exists()


def test_other_json_files_are_an_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.json: lacks benchmarks, card"):
        write_page(tmp_path, tmp_path / "page.md")


def test_lean_is_compared_with_plain_of_its_own_group_in_time_and_memory() -> None:
    plain = Result("step", "plain", {"wall_ms": 30.0, "peak_extra_mb": 200.0})
    other = Result("other step", "plain", {"wall_ms": 1.0, "peak_extra_mb": 1.0})
    lean = Result("step", "lean", {"wall_ms": 10.0, "peak_extra_mb": 50.0})
    assert ratios([plain, other, lean], lean) == {"times_faster_than_plain": 3.0, "percent_of_plain_peak_extra": 25.0}
    assert ratios([plain, other, lean], plain) == {}


def test_presets_are_compared_with_paper() -> None:
    paper = Result("step", "paper", {"wall_ms": 30.0, "peak_extra_mb": 200.0})
    lean = Result("step", "lean", {"wall_ms": 60.0, "peak_extra_mb": 50.0})
    assert ratios([paper, lean], lean) == {"times_faster_than_paper": 0.5, "percent_of_paper_peak_extra": 25.0}
