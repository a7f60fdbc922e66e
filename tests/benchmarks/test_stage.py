"""Stages with planted failures of each kind: what was measured stays, and what comes after is measured too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import stage
from benchmarks.lines import Lines, Record, begun, of_kind, read
from benchmarks.stage import Stage, run_stage

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = """
from benchmarks import recording
from benchmarks.conftest import *

def synchronise():
    from pathlib import Path
    if (Path(__file__).parent / "unusable").exists():
        raise RuntimeError("an illegal memory access was encountered")

recording.synchronise = synchronise
"""
PLANTED = """
import os, signal, time
from pathlib import Path
import pytest

@pytest.fixture(autouse=True)
def usable():
    # As a process after the one with the error would find the GPU.
    (Path(__file__).parent / "unusable").unlink(missing_ok=True)

def raises():
    raise ValueError("planted")

def note(measure, name, **options):
    measure(lambda: None, group="planted", name=name, memory=False, **options)

def test_before(measure):
    note(measure, "before")

def test_raises(measure):
    note(measure, "raises")
    raises()

def test_part_raises(measure):
    note(measure, "part raises", parts={"bad": raises})

def test_skips(measure):
    note(measure, "skips")
    pytest.skip("planted reason")

def test_interrupted(measure):
    note(measure, "interrupted")
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

def test_interrupted_in_a_round(measure):
    calls = []
    def call():
        calls.append(0)
        if len(calls) > 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
    measure(call, group="planted", name="interrupted in a round", memory=False)

def test_sticky(measure):
    note(measure, "sticky")
    (Path(__file__).parent / "unusable").touch()
    raises()

def test_killed(measure):
    note(measure, "killed")
    os.kill(os.getpid(), signal.SIGKILL)

def test_after(measure):
    note(measure, "after")
"""


@pytest.fixture(autouse=True)
def _processes_find_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """And load no plugin but those that they name: most of them take longer to load than the tests to run."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # or pytest-benchmark would refuse


def pytest_command(folder: Path, lines: Lines, *options: str) -> tuple[str, ...]:
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    recorded = ("-p", "benchmarks.recording", f"--benchmark-lines={lines.path}")
    return (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *recorded, *options, str(folder))


def test_failures_lose_nothing_measured_before_and_nothing_that_comes_after(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "test_planted.py").write_text(PLANTED, encoding="utf-8")
    lines = Lines(tmp_path / "run.jsonl")
    small = ("--benchmark-only", "--benchmark-size=small", f"--benchmark-json={tmp_path / 'report.json'}")
    command = pytest_command(tmp_path, lines, "-p", "pytest_benchmark.plugin", "--benchmark-until={until}", *small)
    assert run_stage(Stage("planted", command, seconds=300), lines, time.monotonic() + 300)
    records = read(lines.path)
    assert_measured_once(records)
    assert_failures_say_why(records)
    assert_processes_that_broke_say_how(records)


def assert_measured_once(records: list[Record]) -> None:
    names = ("before", "raises", "part raises", "skips", "interrupted", "sticky", "killed", "after")
    measured = {record["name"] for record in of_kind(records, "result") if "wall_ms" in record["figures"]}
    assert measured == set(names)
    ids = [record["id"] for record in of_kind(records, "begin")]
    assert len(ids) == len(set(ids)) == len(names) + 1


def assert_failures_say_why(records: list[Record]) -> None:
    failed = {record["id"].partition("::")[2]: record["error"] for record in of_kind(records, "failed")}
    assert failed.keys() == {"test_raises", "test_part_raises", "test_sticky"}
    assert all("planted" in error for error in failed.values())
    (skipped,) = of_kind(records, "skipped")
    assert skipped["reason"] == "planted reason"


def assert_processes_that_broke_say_how(records: list[Record]) -> None:
    broken = [(record["status"], record["ended_for"]) for record in of_kind(records, "broken")]
    assert broken == [(2, None), (2, None), (70, None), (-signal.SIGKILL, None)]
    assert "illegal memory access" in next(r["unusable"] for r in of_kind(records, "failed") if "unusable" in r)
    (end,) = of_kind(records, "end")
    assert end["complete"]


HANGING = """
import signal, sys, time
from pathlib import Path
from benchmarks.lines import Lines, begun
path = Path(sys.argv[1])
lines = Lines(path)
for test in ("before", "hangs", "after"):
    if test not in begun(path):
        lines.write("begin", id=test)
        if test == "hangs":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            time.sleep(600)
"""


def test_process_that_hangs_is_followed_by_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_GRACE", 0.2)
    lines = Lines(tmp_path / "run.jsonl")
    command = (sys.executable, "-c", HANGING, str(lines.path))
    assert run_stage(Stage("hanging", command, seconds=300, silence=2), lines, time.monotonic() + 300)
    assert begun(lines.path) == ["before", "hangs", "after"]
    (broken,) = of_kind(read(lines.path), "broken")
    assert (broken["status"], broken["ended_for"]) == (-signal.SIGKILL, "silence")


def test_worker_that_is_killed_takes_no_other_test_with_it(tmp_path: Path) -> None:
    pytest.importorskip("xdist", reason="needs pytest-xdist")
    body = "import os, signal\ndef test_killed(): os.kill(os.getpid(), signal.SIGKILL)\n"
    body += "".join(f"def test_{number}(): pass\n" for number in range(4))
    (tmp_path / "test_planted.py").write_text(body, encoding="utf-8")
    lines = Lines(tmp_path / "run.jsonl")
    command = pytest_command(tmp_path, lines, "-p", "xdist.plugin", "-n", "1")
    assert run_stage(Stage("tests", command, 120), lines, time.monotonic() + 120)
    assert len(of_kind(read(lines.path), "passed")) == 4
    (failed,) = of_kind(read(lines.path), "failed")
    assert "test_killed" in failed["id"]


def test_nothing_begins_too_late(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text("def test_late(): pass\n", encoding="utf-8")
    lines = Lines(tmp_path / "run.jsonl")
    command = pytest_command(tmp_path, lines, "--benchmark-until=1")
    run_stage(Stage("late", command, 120), lines, time.monotonic() + 120)
    assert begun(lines.path) == []
    (left_out,) = of_kind(read(lines.path), "left_out")
    assert left_out["tests"] == 1


# A child that ignores interrupts, and whose memory takes a moment to be given back after a kill.
SLEEP_WITH_A_CHILD = """
import pathlib, subprocess, sys, time
ignoring = "import signal, time; signal.signal(2, signal.SIG_IGN); held = b'x' * 2**28; print('ready', flush=True)"
child = subprocess.Popen([sys.executable, "-c", ignoring + "; time.sleep(600)"], stdout=subprocess.PIPE)
child.stdout.readline()
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


def is_running(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        return not re.search(r"^State:\s+[ZX]", status, re.MULTILINE)  # a zombie, or dead
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for processes in /proc")
def test_no_process_of_a_stage_outlives_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_LEAST_SECONDS", 1.0)
    lines = Lines(tmp_path / "run.jsonl")
    command = (sys.executable, "-c", SLEEP_WITH_A_CHILD, str(tmp_path / "child"))
    start = time.monotonic()
    assert not run_stage(Stage("slow", command, seconds=2), lines, start + 300)
    (end,) = of_kind(read(lines.path), "end")
    assert end["ended_for"] == "time"
    assert not is_running(int((tmp_path / "child").read_text(encoding="utf-8")))


def test_error_at_the_start_is_not_taken_for_failing_tests(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "run.jsonl")
    command = (sys.executable, "-c", "raise ImportError")
    assert not run_stage(Stage("bad", command, 60), lines, time.monotonic() + 60)
    assert [record["kind"] for record in read(lines.path)] == ["process", "broken", "end"]


INTERRUPTED_RUN = """
import sys, time
from pathlib import Path
from benchmarks.lines import Lines
from benchmarks.stage import Stage, run_stage
lines = Lines(Path(sys.argv[1]))
run_stage(Stage("slow", (sys.executable, "-c", "import time; time.sleep(600)"), 300), lines, time.monotonic() + 300)
"""


def test_interrupt_of_the_whole_run_ends_its_stage_and_is_on_record(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_RUN, str(file)], cwd=ROOT, stderr=subprocess.DEVNULL
    ) as run:
        while not file.exists() or not of_kind(read(file), "process"):
            assert run.poll() is None
            time.sleep(0.05)
        os.kill(run.pid, signal.SIGINT)
        run.wait(60)
    (end,) = of_kind(read(file), "end")
    assert end["ended_for"] == "interrupt"
