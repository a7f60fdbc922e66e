"""`benchmarks/gpu.sh`: what it refuses, and what its stages are; `--dry-run` tries the stages themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import stages
from benchmarks.stages import Run, plan

ROOT = Path(__file__).resolve().parents[2]


def run_script(folder: Path, *arguments: str, driver: str = "Made-up Card, 1.2.3, Default") -> tuple[int, str]:
    """Exit status and errors of the script, with a driver that only pretends; results go into `folder / "out"`."""
    tools = folder / "bin"
    tools.mkdir()
    for name, body in (("python3", f'exec {sys.executable} "$@"'), ("nvidia-smi", f"echo '{driver}'")):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "OUT": str(folder / "out")}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), *arguments]
    ended = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "driver", "error"),
    [
        (("nothing",), "Made-up Card, 1.2.3, Default", "invalid choice: 'nothing'"),
        (("loss",), "no devices were found", "there is no GPU here"),
        (("loss", "--only", "wrong"), "Made-up Card, 1.2.3, Default", "--only: got wrong, need some of compile"),
    ],
    ids=["unknown", "no GPU", "no such stage"],
)
def test_what_cannot_run_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], driver: str, error: str) -> None:
    status, errors = run_script(tmp_path, *arguments, driver=driver)
    assert status == 2
    assert error in errors
    assert not (tmp_path / "out").exists()


def test_no_run_is_added_to_another_one(tmp_path: Path) -> None:
    file = tmp_path / "out" / "made-up-card-loss.jsonl"
    file.parent.mkdir()
    file.write_text("of another run\n", encoding="utf-8")
    status, errors = run_script(tmp_path, "loss")
    assert status == 2
    assert f"{file} exists" in errors
    assert file.read_text(encoding="utf-8") == "of another run\n"


def make_run(what: str, *, dry: bool, processes: int = 16) -> Run:
    return Run(Path(f"out/card-{what}.jsonl"), dry, "abc", 9, Path("folder"), processes)


def test_what_matters_most_comes_first() -> None:
    names = [stage.name for stage in plan("loss", make_run("loss", dry=False))]
    assert names == ["compile", "headline", "fused", "eager", "tests", "sizes", "compiled"]


@pytest.mark.parametrize("dry", [False, True], ids=["card", "dry run"])
@pytest.mark.parametrize("what", stages.WHATS)
def test_stages_record_in_one_file_and_name_files_that_exist(what: str, dry: bool) -> None:
    for stage in plan(what, make_run(what, dry=dry)):
        small = "--benchmark-size=small" in stage.command or "--dry-run" in stage.command or stage.name == "tests"
        assert small == dry or stage.name == "tests"
        assert what == "train" or any(word.endswith(f"=out/card-{what}.jsonl") for word in stage.command)
        assert all((ROOT / word).exists() for word in stage.command if word.startswith(("benchmarks/", "tests/")))


def test_training_has_a_log_of_its_own_and_ends_before_the_run() -> None:
    (stage,) = plan("train", make_run("train", dry=False))
    options = dict(zip(stage.command[3::2], stage.command[4::2], strict=True))
    assert options == {"--data": "folder", "--minutes": "8.5", "--out": "out/card-train-log.jsonl", "--commit": "abc"}


def test_tests_take_all_processes_that_there_are() -> None:
    command = next(s for s in plan("loss", make_run("loss", dry=False)) if s.name == "tests").command
    assert command[-3:] == ("-n", "16", "--dist=loadgroup")
    alone = next(s for s in plan("loss", make_run("loss", dry=False, processes=0)) if s.name == "tests").command
    assert "-n" not in alone
