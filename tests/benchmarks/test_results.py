"""From the records of runs to the page; all numbers are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lines import Lines, read
from benchmarks.results_page import gather, main, write_page
from benchmarks.results_table import Result, ratios
from tests.benchmarks.made_up import GROUP, write_run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with one result file, and a log of training beside it."""
    folder = tmp_path / "results"
    write_run(folder / "made-up-card-loss.jsonl")
    Lines(folder / "made-up-card-train-log.jsonl").write("header")
    return folder


def test_figures_of_a_result_come_together_and_compare_whatever_the_order(results: Path) -> None:
    triton, eager = gather(read(results / "made-up-card-loss.jsonl"))
    assert (triton.group, triton.name, eager.name) == (GROUP, "triton", "eager")
    assert triton.figures == {
        "wall_ms": 222.0,
        "gpu_ms": 111.0,
        "percent_of_copy": 33.333,
        "times_faster_than_eager": 4.0,
    }
    assert eager.figures == {"wall_ms": 999.0, "gpu_ms": 444.0}


def test_page_has_what_the_file_has(tmp_path: Path, results: Path) -> None:
    assert write_page(results, tmp_path / "docs" / "results.md")
    page = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    for line in (
        "## Made-up Card",
        "### `bash benchmarks/gpu.sh loss`",
        "- Measured on 2001-02-03, commit abc, driver 1.2.3.",
        "- python 3.0, torch 2.0, triton not installed.",
        "- Compute capability 9.9, 11 multiprocessors, 22 MB of L2 cache, 66 GB of memory, runtime 4.5.",
        "- Device-to-device copy: 777 GB/s, read and written bytes together.",
        "- 1 comparisons of the public functions with the CPU.",
        "- 1 tests and benchmarks passed.",
        "- 1 skipped: no reason.",
        "- Failed: `tests/gpu/test_made_up.py::test_bad`: made up",
        "- Stage sizes is not complete: time.",
        "|  | wall ms | gpu ms | % of copy | eager / this |\n| --- | ---: | ---: | ---: | ---: |",
        "| triton | 222 | 111 | 33.3 | 4 |",
    ):
        assert f"\n{line}\n" in page
    assert "Stage fused" not in page


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


def test_other_files_are_an_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.jsonl: does not begin with the record 'start'"):
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


def test_result_whose_gpu_time_is_missing_is_compared_by_the_wall_time() -> None:
    eager = Result("loss", "eager", {"wall_ms": 30.0})
    fused = Result("loss", "triton", {"wall_ms": 10.0, "gpu_ms": 1.0})
    assert ratios([eager, fused], fused) == {"times_faster_than_eager": 3.0}
