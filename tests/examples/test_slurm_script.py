"""The job script for SLURM, with stand-ins for SLURM's commands; and the commands on the page about training."""

from __future__ import annotations

import os
import re
import shlex
import signal
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import tyro

from gss_train.config import Config, parse_config
from gss_train.prepare import PrepareArguments

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "slurm.sh"
PAGE = ROOT / "docs" / "training.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OF_OTHERS = {
    *("--check", "--clean", "--help", "--config", "--print-config"),
    *("--nproc-per-node", "--shutdown-timeout", "--logdir", "--benchmark-long", "--benchmark-only", "--benchmark-crop"),
    *("--signal", "--kill-on-bad-exit", "--label", "--job-name"),
}

SRUN = """#!/bin/bash
printf '%s\\n' "$@" > srun.arguments
while [ "$1" != bash ]; do shift; done
export SLURM_PROCID=5 SLURM_LOCALID=1 SLURM_NTASKS=8
exec "$@"
"""
TRAINER = """#!/bin/bash
printf '%s\\n' "$@" > trainer.arguments
echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT" > trainer.variables
[ "$OUTCOME" = wait ] || exit "$OUTCOME"
trap 'sleep 0.2; exit 143' TERM
echo $$ > trainer.pid
while :; do sleep 0.05; done
"""
SCANCEL = """#!/bin/bash
[ "$*" = "--signal=TERM 4711" ] && kill -TERM "$(cat trainer.pid)"
"""
SCONTROL = """#!/bin/bash
case "$1" in
    show) printf 'first\\nsecond\\n' ;;
    requeue) echo "$2" >> requeued ;;
esac
"""


@dataclass
class Job:
    folder: Path
    process: subprocess.Popen[bytes]

    def end(self) -> int:
        return self.process.wait(timeout=60)

    def wait_for_trainer(self) -> None:
        path = self.folder / "trainer.pid"
        while not (path.exists() and path.read_text().endswith("\n")):
            assert self.process.poll() is None
            time.sleep(0.01)

    @property
    def is_requeued(self) -> bool:
        return (self.folder / "requeued").exists()

    def read(self, name: str) -> list[str]:
        return (self.folder / name).read_text().splitlines()


def submit(folder: Path, outcome: str) -> Job:
    """Run the script as SLURM does, with arguments; the training ends with a status, or waits for SIGTERM."""
    programs = {"bin/srun": SRUN, "bin/scancel": SCANCEL, "bin/scontrol": SCONTROL, ".venv/bin/python": TRAINER}
    for name, text in programs.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    variables = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "OUTCOME": outcome,
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "one",
        "SLURM_JOB_NODELIST": "first,second",
        "SLURM_CPUS_PER_TASK": "6",
    }
    command = ["bash", str(SCRIPT), "--dataset", "brats2020", "--data-root", "/data/a b"]
    return Job(folder, subprocess.Popen(command, cwd=folder, env=variables))


def test_a_process_is_given_its_place_and_the_arguments(tmp_path: Path) -> None:
    job = submit(tmp_path, "0")
    assert job.end() == 0
    assert not job.is_requeued
    expected = ["-m", "gss_train.main", "--dataset", "brats2020", "--data-root", "/data/a b", "--output", "runs/one"]
    assert job.read("trainer.arguments") == expected
    assert job.read("trainer.variables") == ["5 1 8 first 19711"]
    assert "--cpus-per-task=6" in job.read("srun.arguments")


def test_out_of_time_it_has_the_run_saved_and_goes_into_the_queue_again(tmp_path: Path) -> None:
    job = submit(tmp_path, "wait")
    job.wait_for_trainer()
    job.process.send_signal(signal.SIGUSR1)
    assert job.end() == 143
    assert job.read("requeued") == ["4711"]


def test_stopped_by_hand_it_stays_out_of_the_queue(tmp_path: Path) -> None:
    job = submit(tmp_path, "wait")
    job.wait_for_trainer()
    os.kill(int(job.read("trainer.pid")[0]), signal.SIGTERM)
    assert job.end() == 143
    assert not job.is_requeued


def test_a_failure_is_passed_on(tmp_path: Path) -> None:
    job = submit(tmp_path, "3")
    assert job.end() == 3
    assert not job.is_requeued


def test_the_batch_shell_alone_hears_the_warning() -> None:
    """What reaches the training by itself as well would reach it twice."""
    directives = dict(
        re.findall(r"^#SBATCH (--[a-z-]+)=?(.*)$", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert directives["--signal"].startswith("B:USR1@")
    assert "--requeue" in directives
    # A job begins again in the log that it left.
    assert directives["--open-mode"] == "append"


def commands(page: str) -> list[list[str]]:
    lines = "\n".join(BLOCK.findall(page)).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line]


def arguments_after(command: list[str], *programs: str) -> list[str] | None:
    """Those of the command that the first of the programs has; up to a redirection."""
    for program in programs:
        if program in command:
            arguments = command[command.index(program) + 1 :]
            return arguments[: arguments.index(">")] if ">" in arguments else arguments
    return None


def test_commands_of_the_page_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = commands(PAGE.read_text(encoding="utf-8"))
    trainings = [
        *filter(None, (arguments_after(command, "gss_train.main", "examples/slurm.sh") for command in page)),
        arguments_after(
            re.findall(r"^#     (sbatch .*)$", SCRIPT.read_text(), flags=re.MULTILINE)[0].split(), "examples/slurm.sh"
        ),
    ]
    assert len(trainings) > 5
    for arguments in trainings:
        assert arguments is not None
        if "--print-config" in arguments:
            with pytest.raises(SystemExit) as ended:
                parse_config(arguments)
            assert not ended.value.code
            printed = capsys.readouterr().out
            for name in ("mine.json", "runs/one/config.json"):
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text(printed, encoding="utf-8")
            continue
        parse_config(arguments)
    preparations = [*filter(None, (arguments_after(command, "gss_train.prepare") for command in page))]
    assert preparations
    for arguments in preparations:
        tyro.cli(PrepareArguments, args=arguments)


def test_flags_of_the_page_exist() -> None:
    own = {name for section in get_type_hints(Config).values() for name in get_type_hints(section)}
    named = set(FLAG.findall(PAGE.read_text(encoding="utf-8").replace("--augment-...", ""))) - OF_OTHERS
    unknown = {flag for flag in named if flag.removeprefix("--").removeprefix("no-").replace("-", "_") not in own}
    assert len(named) > 40
    assert not unknown
