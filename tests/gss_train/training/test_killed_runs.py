"""A run that is killed, wherever, and gone on with ends as one that never was."""

from __future__ import annotations

import io
import os
import random
import signal
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from gss_train.main import main as train
from gss_train.runs.checkpoints import read_checkpoint
from tests.gss_train.training.killable import start
from tests.gss_train.training.tiny import SETTINGS, metrics, one_processor, small_figures, write_scans

MORE = [
    *("--epochs", "2", "--learning-rate", "0.01", "--gss-ramp", "1", "--ema", "0.9", "--gather-every", "1"),
    *("--validate-every", "2", "--validation-subjects", "1", "--figure-every", "2", "--tensorboard"),
    *("--final-evaluation", "dice", "--stage-validation"),
]
SEED = 3
# What two runs of the same machine do not share.
OF_THE_CLOCK = {"seconds", "samples_per_second", "peak_memory_mb"}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("data") / "scans", 4)


def arguments(scans: Path, output: Path) -> list[str]:
    folders = ["--data-root", str(scans), "--cache", str(scans.with_name("cache")), "--output", str(output)]
    return [*SETTINGS, *MORE, *folders]


def main(arguments: list[str]) -> int:
    """`python -m gss_train.main` in this process."""
    with one_processor(), small_figures():
        return train(arguments)


@pytest.fixture(scope="module")
def undisturbed(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    output = tmp_path_factory.mktemp("runs") / "run"
    assert main(arguments(scans, output)) == 0
    return output


def assert_same_end(output: Path, expected: Path) -> None:
    """Weights to the bit, the same lines of metrics, the same table."""
    for name in ("baseline.pt", "gss-round-1.pt", "checkpoints/best.pt"):
        own, other = read_checkpoint(output / name), read_checkpoint(expected / name)
        for kind in ("weights", "averaged"):
            assert own[kind].keys() == other[kind].keys()
            assert all(torch.equal(own[kind][key], other[kind][key]) for key in other[kind]), (name, kind)
        assert own["position"] == other["position"]
    assert timeless(output) == timeless(expected)
    for name in ("subsets.csv", "evaluation/table.csv", "evaluation/subjects.csv"):
        assert (output / name).read_bytes() == (expected / name).read_bytes()
    assert names(output) == names(expected)


def timeless(output: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in OF_THE_CLOCK} for line in metrics(output)]


def names(output: Path) -> set[str]:
    """All files but TensorBoard's, of which every life has one."""
    return {str(path.relative_to(output)) for path in output.rglob("*") if path.parent.name != "tensorboard"}


def test_the_metrics_have_every_line(undisturbed: Path) -> None:
    assert [line["step"] for line in metrics(undisturbed, "steps")] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in metrics(undisturbed, "epoch")] == [1, 2, 3]
    assert [line["epoch"] for line in metrics(undisturbed, "validation")] == [2]


def test_checkpoints_say_whether_the_training_was_finished(undisturbed: Path) -> None:
    for name, finished in (("baseline.pt", False), ("gss-round-1.pt", True), ("checkpoints/best.pt", False)):
        assert read_checkpoint(undisturbed / name)["progress"]["finished"] is finished


def test_killed_before_operations_on_its_files(scans: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Where, is drawn; each life gets further than the one before."""
    kills = sorted(random.Random(SEED).sample(range(10, 70), 4))
    print(f"seed {SEED}: killed before operations {kills}")
    output = tmp_path / "run"
    for life, operation in enumerate((*kills, None)):
        # Every other one has checkpoints at the ends of stages alone.
        process = start([*arguments(scans, output), "--checkpoint-minutes", str(life % 2 * 15)], output, operation)
        process.join()
        assert process.exitcode == (0 if operation is None else -signal.SIGKILL)
    assert_same_end(output, undisturbed)


@dataclass
class Stopped:
    """A run in a process that another one met, and that a SIGTERM ended in its second epoch.

    Attributes:
        output: its folder.
        process_id: of its process.
        refused: exit status of the other process.
        said: by the other on standard error.
        status: its own exit status.
    """

    output: Path
    process_id: int
    refused: int
    said: str
    status: int


@pytest.fixture(scope="module")
def stopped(scans: Path, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    output = tmp_path_factory.mktemp("stopped") / "run"
    process = start(arguments(scans, output), output)
    while not reached(output, step=3):
        assert process.is_alive()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)
    errors = io.StringIO()
    try:
        os.kill(process.pid, signal.SIGTERM)
        with redirect_stderr(errors):
            refused = main(arguments(scans, output))
    finally:
        os.kill(process.pid, signal.SIGCONT)
    process.join()
    return Stopped(output, process.pid, refused, errors.getvalue(), process.exitcode)


def reached(output: Path, step: int) -> bool:
    """Whether the run has noted so many steps."""
    path = output / "metrics.jsonl"
    return path.exists() and any(f'"step": {number},' in path.read_text() for number in (step, step + 1))


def test_a_second_process_on_the_same_folder_refuses(stopped: Stopped) -> None:
    assert stopped.refused == 2
    assert str(stopped.output) in stopped.said
    assert str(stopped.process_id) in stopped.said


def test_a_signal_ends_the_step_saves_and_says_so_by_the_exit_status(stopped: Stopped) -> None:
    assert stopped.status == 128 + signal.SIGTERM
    before, newest = sorted((stopped.output / "checkpoints").glob("step-*.pt"))
    assert before.name == "step-00000002.pt"
    assert not read_checkpoint(newest)["progress"]["finished"]
    assert not (stopped.output / "subsets.md").exists()


def test_a_damaged_checkpoint_is_said_and_the_one_before_used(
    scans: Path, undisturbed: Path, stopped: Stopped, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = max((stopped.output / "checkpoints").glob("step-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert main(arguments(scans, stopped.output)) == 0
    printed = capsys.readouterr().out
    assert newest.name in printed
    assert "Going on after step 2 " in printed
    assert_same_end(stopped.output, undisturbed)


def test_other_settings_do_not_go_on_with_it(
    scans: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = metrics(undisturbed)
    assert main([*arguments(scans, undisturbed), "--learning-rate", "0.02"]) == 2
    assert "--learning-rate" in capsys.readouterr().err
    assert metrics(undisturbed) == before


def test_a_finished_run_is_left_as_it_is(scans: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = metrics(undisturbed)
    assert main(arguments(scans, undisturbed)) == 0
    said = capsys.readouterr().out
    assert "finished already" in said
    assert (undisturbed / "subsets.md").read_text() in said
    assert metrics(undisturbed) == before


def test_without_resuming_a_used_folder_is_refused(
    scans: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(scans, undisturbed), "--resume", "never"]) == 2
    assert "--output" in capsys.readouterr().err
