"""`python -m benchmarks.train`: what it writes on noise, whatever becomes of it, and how it divides its time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks.lines import Lines, of_kind
from benchmarks.train import __main__ as train
from benchmarks.train.arm import ArmSettings, PlannedArm, train_arm
from benchmarks.train.comparison import Comparison, Plan, divide_time
from benchmarks.train.made_up import make_up_subjects
from benchmarks.train.pace import Pace
from benchmarks.train.process import CallError
from benchmarks.train.subjects import read_subjects
from gss_train.common.errors import UserError
from gss_train.data import MODALITY_SUBSETS, subset_name
from tests.gss_train.test_light_imports import import_without_others

ROOT = Path(__file__).resolve().parents[2]
ARMS = ("baseline", "gss", "longer")
NAME = "made-up"
LONGEST_WAIT = 60
# A run of which an arm fails, and one to be killed: a process of each would import PyTorch once more.
FAILING_AND_WHOLE = """\
import runpy, sys
from benchmarks.train import __main__ as train
from benchmarks.train import comparison

def train_arm(plan, settings, subjects, device_type, lines):
    if plan.arm == "gss":
        raise RuntimeError(f"{subjects.training[0].name}: cannot be read")
    lines.write("result", arm=plan.arm)
    return 1

original, comparison.train_arm = comparison.train_arm, train_arm
print(train.main(["--dry-run", "--out", sys.argv[1]]), flush=True)
comparison.train_arm = original
sys.argv[1:] = ["--dry-run", "--out", sys.argv[2]]
runpy.run_module("benchmarks.train", run_name="__main__", alter_sys=True)
"""
CALLING = """\
import os, sys, time
from benchmarks.train.process import CallError, call_in_process

def divide(number):
    return 1 / number

def die():
    os.kill(os.getpid(), 9)

for function, *arguments in ((divide, 4), (divide, 0), (die,), (divide, 2)):
    try:
        print(call_in_process(function, *arguments), flush=True)
    except CallError as error:
        print(error, flush=True)
call_in_process(lambda: (print("sleeping", flush=True), time.sleep(600)))
"""
# Every arm's process would import the compiler, as soon as it makes an optimiser.
DRY_RUN = """\
import torch
import torch._dynamo

asked = []
names = ("is_available", "device_count", "current_device", "_lazy_init")
functions = {name: getattr(torch.cuda, name) for name in names}
for name in functions:
    setattr(torch.cuda, name, lambda *arguments, name=name: asked.append(name))
from benchmarks.train.__main__ import main

print(asked)
for name, function in functions.items():
    setattr(torch.cuda, name, function)
"""


class DryRun(NamedTuple):
    """Attributes: what it wrote, and which functions of `torch.cuda` were called while it was imported."""

    out: Path
    asked: str


def records(path: Path) -> list[dict[str, Any]]:
    """Of a file of whole lines only."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the processes: more than there are processors for only slow them down."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> DryRun:
    """A dry run where nothing but what a GPU machine has can be imported."""
    folder = tmp_path_factory.mktemp("dry-run")
    out = folder / "results" / "out.jsonl"
    # So many minutes that no machine is too busy to score.
    arguments = ["--dry-run", "--commit", "abc", "--minutes", "60", "--out", str(out)]
    program = f"{DRY_RUN}assert main({arguments!r}) == 0\n"
    (folder / "dry_run_program.py").write_text(program, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv("OMP_NUM_THREADS", "1")
        done = import_without_others(("benchmarks.train.packed", "dry_run_program"))
    assert done.returncode == 0, done.stderr
    return DryRun(out, done.stdout.splitlines()[0])


class FailedAndKilled(NamedTuple):
    """Attributes: exit status and records of a run of which an arm failed, and records of one that was killed."""

    status: str
    failed: Path
    killed: Path


@pytest.fixture(scope="module")
def failed_and_killed(tmp_path_factory: pytest.TempPathFactory) -> FailedAndKilled:
    """Both in one process, which leaves no other one behind."""
    folder = tmp_path_factory.mktemp("failed-and-killed")
    failed, killed = folder / "failed.jsonl", folder / "killed.jsonl"
    command = [sys.executable, "-c", FAILING_AND_WHOLE, str(failed), str(killed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        end = time.monotonic() + LONGEST_WAIT
        while not (killed.exists() and b'"progress"' in killed.read_bytes()) and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()
        output, _ = process.communicate(timeout=LONGEST_WAIT)  # returns once no process has the pipe
    return FailedAndKilled(output.split()[0], failed, killed)


def test_dry_run_writes_each_arm_in_order(dry_run: DryRun) -> None:
    found = records(dry_run.out)
    arm = ["progress", "progress", "progress", "result"]
    assert [record["kind"] for record in found] == ["header", "plan", *arm, *arm, *arm, "end"]
    assert [record["arm"] for record in found[2:-1]] == [name for name in ARMS for _ in arm]
    assert [record["steps"] for record in of_kind(found, "progress")] == [1, 2, 3] * 3
    assert found[0]["commit"] == "abc"
    assert found[0]["training_subjects"] + found[0]["held_out_subjects"] == 6
    assert found[-1]["failed"] == 0


def test_results_have_means_of_all_subsets(dry_run: DryRun) -> None:
    found = records(dry_run.out)
    (header,), results = of_kind(found, "header"), of_kind(found, "result")
    for result in results:
        assert list(result["dice"]) == [subset_name(subset) for subset in MODALITY_SUBSETS]
        for name in ("WT", "TC", "ET"):
            own = [scores[name] for scores in result["dice"].values()]
            assert result["dice_mean_over_subsets"][name] == pytest.approx(sum(own) / 15, rel=1e-3)
        assert result["scored_subjects"] == header["held_out_subjects"]
        assert result["steps_per_s"] > 0
        assert result["peak_memory_mb"] > 0
    losses = {result["arm"]: result["losses_of_last_50_steps"] for result in results}
    assert losses["gss"]["gss"] > 0
    assert losses["baseline"]["gss"] == losses["longer"]["gss"] == 0
    # They start alike, from what the baseline learnt.
    first = {record["arm"]: record["losses_of_last_50_steps"]["fused"] for record in found if record.get("steps") == 1}
    assert first["gss"] == first["longer"] != first["baseline"]


def test_no_subject_is_named(dry_run: DryRun) -> None:
    assert NAME not in dry_run.out.read_text(encoding="utf-8")


def test_failing_arm_leaves_the_others(failed_and_killed: FailedAndKilled) -> None:
    assert failed_and_killed.status == "1"
    found = records(failed_and_killed.failed)
    (error,) = of_kind(found, "error")
    assert (error["arm"], error["error"]) == ("gss", "RuntimeError: (a subject): cannot be read")
    assert [record["arm"] for record in of_kind(found, "result")] == ["baseline", "longer"]
    assert (found[-1]["kind"], found[-1]["failed"]) == ("end", 1)


def test_killed_run_leaves_whole_lines_and_no_process(failed_and_killed: FailedAndKilled) -> None:
    kinds = [record["kind"] for record in records(failed_and_killed.killed)]
    assert kinds[:3] == ["header", "plan", "progress"]
    assert "end" not in kinds


def test_calls_take_nothing_with_them() -> None:
    command = [sys.executable, "-c", CALLING]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        answers = [process.stdout.readline().strip() for _ in range(5)]
        process.kill()
        rest, _ = process.communicate(timeout=LONGEST_WAIT)  # returns once no process has the pipe
    died = f"its process ended with exit status {-signal.SIGKILL}"
    assert answers == ["0.25", "ZeroDivisionError: division by zero", died, "0.5", "sleeping"]
    assert rest == ""


class Runs:
    """In place of processes: notes what is planned, and takes no time but what it is told."""

    def __init__(self, plan: Plan, clock: list[float]) -> None:
        self.plan, self.clock = plan, clock
        self.planned: list[PlannedArm] = []

    def __call__(self, function: object, *arguments: Any) -> Any:
        if function is not train_arm:
            return "cpu", ArmSettings(), self.plan
        planned: PlannedArm = arguments[0]
        self.planned.append(planned)
        self.clock[0] = planned.end + (5 if planned.arm == "baseline" else 0)
        if planned.arm == "gss" and planned.seed == 1:
            raise CallError("made up")
        return 70 if planned.arm == "gss" else 100


def test_arms_have_equal_times_and_end_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_up_subjects(tmp_path / "prepared", 4, (16, 16, 16))
    clock = [1000.0]
    runs = Runs(Plan(arm_seconds=50, scoring_seconds=10, scored=2), clock)
    monkeypatch.setattr("benchmarks.train.comparison.call_in_process", runs)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    subjects = read_subjects(tmp_path / "prepared")
    comparison = Comparison(ArmSettings(), subjects, (0, 1), "cpu", 1300.0, {}, Lines(tmp_path / "out.jsonl"))
    assert comparison.run() == 1
    assert [(planned.arm, planned.seed) for planned in runs.planned] == [(arm, seed) for seed in (0, 1) for arm in ARMS]
    # Two arms took 5 seconds too long, which those after them share.
    assert [planned.end for planned in runs.planned] == [1050, 1104, 1153, 1202, 1253.5, 1300]
    assert all(planned.training_end == planned.end - 10 for planned in runs.planned)
    assert [planned.steps for planned in runs.planned] == [None, None, 70, None, None, None]
    assert runs.planned[0].weights == runs.planned[2].weights != runs.planned[3].weights


@pytest.mark.parametrize(
    ("per_subject", "scored"), [(25.0, 0), (18.0, 2), (8.0, 5), (0.001, 9)], ids=["none", "fewest", "what fits", "all"]
)
def test_scoring_has_its_share(per_subject: float, scored: int) -> None:
    plan = divide_time(300, runs=3, seconds_per_subject=per_subject, held_out=9)
    assert plan.arm_seconds == 100
    assert plan.scored == scored
    assert plan.scoring_seconds == pytest.approx(1.25 * scored * per_subject)


def test_subjects_are_held_out(tmp_path: Path) -> None:
    make_up_subjects(tmp_path, 6, (16, 16, 16))
    subjects = read_subjects(tmp_path)
    names = [{subject.name for subject in part} for part in (subjects.training, subjects.held_out)]
    assert names[0].isdisjoint(names[1])
    assert len(names[0] | names[1]) == 6
    assert len(names[1]) >= 2


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_subjects_are_refused(tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    make_up_subjects(tmp_path, count, (16, 16, 16))
    with pytest.raises(UserError, match=str(tmp_path)):
        read_subjects(tmp_path)
    out = tmp_path / "out.jsonl"
    assert train.main(["--data", str(tmp_path), "--out", str(out)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not out.exists()


def test_pace_leaves_out_a_step_that_would_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    pace = Pace(end=10.5, steps=None, warm_up_steps=1)
    for now in (5.0, 7.0, 9.0):
        assert not pace.is_over
        clock[0] = now
        pace.count()
        if pace.ends_warm_up:
            pace.end_warm_up()
    assert pace.is_over
    assert pace.steps_per_second == 0.5
    assert pace.share == 9 / 10.5


def test_pace_ends_after_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    pace = Pace(end=1000, steps=2, warm_up_steps=5)
    pace.count()
    assert (pace.is_over, pace.share) == (False, 0.5)
    pace.count()
    assert (pace.is_over, pace.share, pace.steps_per_second) == (True, 1, None)
    with pytest.raises(ValueError, match="--minutes"):
        Pace(end=0, steps=None, warm_up_steps=5)


def test_importing_leaves_the_gpu_alone(dry_run: DryRun) -> None:
    """A process that has used it cannot be forked."""
    assert dry_run.asked == "[]"


def test_others_need_what_the_baseline_learnt(tmp_path: Path) -> None:
    make_up_subjects(tmp_path, 4, (16, 16, 16))
    plan = PlannedArm("gss", 0, tmp_path / "0.pt", None, training_end=0.0, end=0.0, scored=0)
    settings = ArmSettings(width=4, crop=16)
    with pytest.raises(FileNotFoundError, match="baseline"):
        train_arm(plan, settings, read_subjects(tmp_path), "cpu", Lines(tmp_path / "out.jsonl"))
