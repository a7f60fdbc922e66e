"""An evaluation that is ended, in whatever way, and started again does the rest, and ends as one that never was."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gss_train.common import Interrupted, Processes, UserError
from gss_train.data import PreparedSubject
from gss_train.evaluation import Evaluation, Job, evaluate_job, job as job_module, read_evaluation
from gss_train.evaluation.folder import unfinished_folder
from gss_train.inference import SlidingWindow
from gss_train.runs import locked
from tests.gss_train.common.killed import contents, kill_everywhere
from tests.gss_train.evaluation.tiny_job import COUNT, VIEWED, WINDOWS, CountingNetwork, draw, make_job, make_subjects


@pytest.fixture
def subjects(tmp_path: Path) -> list[PreparedSubject]:
    return make_subjects(tmp_path / "prepared")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "run" / "evaluation"


class StoppedNetwork(CountingNetwork):
    """Does something before a window, by its number from 1."""

    def __init__(self, at: int, do: Callable[[], None]) -> None:
        super().__init__()
        self.at, self.do = at, do

    def encode(self, x: Tensor, available: Tensor | None = None) -> tuple[Tensor, ...]:
        if self.windows + 1 == self.at:
            self.do()
        return super().encode(x, available)


def fail() -> None:
    raise OSError(28, "No space left on device")


def begin(subjects: list[PreparedSubject], output: Path, scored: int = 3, **changes: Any) -> None:
    """Score so many subjects, and break down in the next."""
    network = StoppedNetwork(scored * WINDOWS + 2, fail).eval()
    with pytest.raises(OSError, match="No space left"):
        evaluate_job(make_job(subjects, network=network, **changes), output)


def windows_of(job: Job, output: Path) -> int:
    """That it takes to carry it out."""
    evaluate_job(job, output)
    assert isinstance(job.network, CountingNetwork)
    return job.network.windows


def test_killed_at_any_operation_on_files_it_ends_as_one_that_was_not(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    lives.mkdir()
    killed = kill_everywhere("tests.gss_train.evaluation.tiny_job:live", lives, str(tmp_path / "prepared"))
    expected = contents(lives / "undisturbed")
    assert {name for name in expected if "subjects/" not in name} == {
        *("evaluation/scores.json", "evaluation/subjects.csv", "evaluation/table.csv", "evaluation/table.md"),
        "evaluation/figures/bars.svg",
    }
    assert len(killed) > 40
    for folder in killed:
        assert contents(folder) == expected, folder.name


def test_what_is_scored_is_not_scored_again(
    subjects: list[PreparedSubject], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(subjects, output)
    assert not output.exists()
    capsys.readouterr()
    assert windows_of(make_job(subjects), output) == (COUNT - 3) * WINDOWS
    said = capsys.readouterr().out
    assert f"3 of {COUNT} subjects are scored already" in said
    # The windows that are left are all that is shown.
    assert f"evaluating: {WINDOWS}/{WINDOWS}, 1 of 1 subjects scored" in said
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_a_window_and_says_what_is_kept(
    subjects: list[PreparedSubject], output: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    network = StoppedNetwork(2 * WINDOWS + 3, lambda: os.kill(os.getpid(), number)).eval()
    with pytest.raises(Interrupted, match=f"2 of {COUNT} subjects are scored and kept, with the same --output"):
        evaluate_job(make_job(subjects, network=network), output)
    assert network.windows == 2 * WINDOWS + 3
    assert windows_of(make_job(subjects), output) == 2 * WINDOWS


def test_of_several_processes_a_signal_ends_each_as_usual(subjects: list[PreparedSubject], output: Path) -> None:
    """One that waits for the others would not hear it."""
    network = StoppedNetwork(WINDOWS + 3, lambda: os.kill(os.getpid(), signal.SIGINT)).eval()
    with pytest.raises(KeyboardInterrupt):
        evaluate_job(make_job(subjects, network=network), output, processes=Processes(0, 2))
    assert windows_of(make_job(subjects), output) == (COUNT - 1) * WINDOWS


CHANGES: dict[str, dict[str, Any]] = {
    "weights": {"network": CountingNetwork(seed=1).eval()},
    "weighting": {"window": SlidingWindow((4, 4, 4), "gaussian")},
    "crop size": {"window": SlidingWindow((4, 4, 6))},
    "precision": {"settings": {"network": "voxelwise", "precision": "bfloat16", "weights": "last"}},
    "measures": {"measures": ("dice",)},
}


@pytest.mark.parametrize("part", CHANGES)
def test_scores_of_another_evaluation_are_not_taken_over(
    subjects: list[PreparedSubject], output: Path, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(subjects, output)
    other = make_job(subjects, **CHANGES[part])
    before = other.network.windows
    windows = windows_of(other, output) - before
    assert windows == COUNT * (4 if part == "crop size" else WINDOWS)
    assert f"0 of {COUNT} subjects are scored already; 3 lie there of another" in capsys.readouterr().out
    evaluate_job(make_job(subjects, **CHANGES[part]), tmp_path / "undisturbed")
    assert contents(output) == contents(tmp_path / "undisturbed")


def test_another_evaluation_overwrites_no_more_than_it_scores(
    subjects: list[PreparedSubject], output: Path, tmp_path: Path
) -> None:
    begin(subjects, output)
    begin(subjects, output, scored=1, **CHANGES["precision"])
    # It has written a subject to look at, and not its scores.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module._UnfinishedFolder, "save", lambda *_: fail())
        with pytest.raises(OSError, match="No space left"):
            evaluate_job(make_job(subjects, **CHANGES["precision"]), output)
    assert windows_of(make_job(subjects), output) == (COUNT - 1) * WINDOWS
    evaluate_job(make_job(subjects), tmp_path / "undisturbed")
    assert contents(output) == contents(tmp_path / "undisturbed")


def test_what_is_complete_leaves_the_scores_of_another_evaluation(
    subjects: list[PreparedSubject], output: Path
) -> None:
    evaluate_job(make_job(subjects), output)
    begin(subjects, output, **CHANGES["precision"])
    assert windows_of(make_job(subjects), output) == 0
    assert windows_of(make_job(subjects, **CHANGES["precision"]), output) == (COUNT - 3) * WINDOWS
    assert list(output.parent.iterdir()) == [output]


def test_a_subject_whose_scans_have_changed_is_scored_again(
    subjects: list[PreparedSubject], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(subjects, output)
    metadata = dataclasses.replace(subjects[2].metadata, digests={"FLAIR": "another"})
    subjects[2] = dataclasses.replace(subjects[2], metadata=metadata)
    assert windows_of(make_job(subjects), output) == (COUNT - 2) * WINDOWS
    assert f"2 of {COUNT} subjects are scored already; 1 lie there of" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", '{"fingerprint": "FINGERPRINT", "seconds": 1, "scores": [0.5]}'])
def test_damaged_scores_are_said_and_computed_again(
    subjects: list[PreparedSubject], output: Path, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(subjects, output)
    job = make_job(subjects)
    path = unfinished_folder(output) / "scores" / "subject-2.json"
    path.write_text(text.replace("FINGERPRINT", job.fingerprints["subject-2"]))
    assert windows_of(job, output) == (COUNT - 2) * WINDOWS
    assert f"{path}: is damaged" in capsys.readouterr().out
    evaluate_job(make_job(subjects), tmp_path / "undisturbed")
    assert contents(output) == contents(tmp_path / "undisturbed")


def test_a_subject_to_look_at_is_there_whoever_scored_it(subjects: list[PreparedSubject], output: Path) -> None:
    begin(subjects, output, viewed=0)
    assert windows_of(make_job(subjects), output) == (COUNT - 1) * WINDOWS
    assert len(list((output / "subjects").iterdir())) == VIEWED


def test_one_that_is_complete_is_left_as_it_is(
    subjects: list[PreparedSubject], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = evaluate_job(make_job(subjects, timed=True), output)
    assert first is not None
    before = contents(output)
    job = make_job(subjects)
    again = evaluate_job(job, output)
    assert again is not None
    assert job.network.windows == 0
    assert "Scored already" in capsys.readouterr().out
    assert contents(output) == before
    for name, values in first.scores.measures.items():
        assert torch.equal(values.nan_to_num(-1), again.scores.measures[name].nan_to_num(-1))
    # But for figures, if it has none.
    evaluate_job(make_job(subjects), output, draw=draw)
    assert contents(output) == {**before, "figures/bars.svg": b"run 2"}
    # Of other weights that are the same, it is not.
    settings = {**job.settings, "weights": "best"}
    assert windows_of(make_job(subjects, settings=settings), output) == COUNT * WINDOWS


def test_a_damaged_one_is_computed_again(
    subjects: list[PreparedSubject], output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_job(make_job(subjects), output)
    before = contents(output)
    (output / "scores.json").write_text("{")
    assert windows_of(make_job(subjects), output) == COUNT * WINDOWS
    assert "it is computed again" in capsys.readouterr().out
    assert contents(output) == before


def test_seconds_are_those_of_all_processes(subjects: list[PreparedSubject], output: Path) -> None:
    begin(subjects, output)
    path = unfinished_folder(output) / "scores" / "subject-1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 1000.0}))
    evaluate_job(make_job(subjects, timed=True), output)
    assert 1000 < read_evaluation(output).settings["seconds"] < 2000


def test_a_second_process_is_refused(subjects: list[PreparedSubject], output: Path) -> None:
    unfinished_folder(output).mkdir(parents=True)
    with locked(unfinished_folder(output)), pytest.raises(UserError, match=f"is in use by process {os.getpid()}"):
        evaluate_job(make_job(subjects), output)


@dataclasses.dataclass(frozen=True)
class Threads(Processes):
    """Two processes that are threads."""

    barrier: threading.Barrier = dataclasses.field(default_factory=lambda: threading.Barrier(2))
    shared: dict[int, Tensor] = dataclasses.field(default_factory=dict)

    def sum(self, values: Tensor) -> Tensor:
        self.shared[self.rank] = values
        self.barrier.wait()
        total = self.shared[0] + self.shared[1]
        self.barrier.wait()
        return total


def test_two_processes_share_what_is_left(subjects: list[PreparedSubject], output: Path, tmp_path: Path) -> None:
    evaluate_job(make_job(subjects), tmp_path / "undisturbed")
    begin(subjects, output, scored=1)
    first = Threads(0, 2)
    second = dataclasses.replace(first, rank=1)
    jobs = [make_job(subjects), make_job(subjects)]

    def work(process: Threads) -> Evaluation | None:
        try:
            return evaluate_job(jobs[process.rank], output, processes=process)
        except BaseException:
            process.barrier.abort()  # the other one would wait for ever
            raise

    with ThreadPoolExecutor(2) as pool:
        _, found = pool.map(work, (first, second))
    assert [job.network.windows for job in jobs] == [2 * WINDOWS, WINDOWS]
    assert found is None
    assert contents(output) == contents(tmp_path / "undisturbed")
    assert list(output.parent.iterdir()) == [output]
