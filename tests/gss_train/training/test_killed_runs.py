"""A run that is killed, wherever, and gone on with ends as one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gss_train.main import main
from gss_train.runs.checkpoint_file import read_checkpoint
from tests.gss_train.training.killable import start

SETTINGS = [
    *("--dataset", "brats2018", "--device", "cpu", "--network", "uhved", "--width", "2", "--crop-size", "16"),
    *("--phantom-subjects", "5", "--phantom-size", "24", "24", "24", "--phantom-test-subjects", "1"),
    *("--baseline-epochs", "2", "--rounds", "1", "--epochs", "3", "--steps-per-epoch", "3", "--batch-size", "2"),
    *("--learning-rate", "0.01", "--gss-warmup", "1", "--gss-ramp", "2", "--ema", "0.9", "--gather-every", "2"),
    *("--validate-every", "2", "--validation-subjects", "1", "--figure-every", "2"),
]
# What two runs of the same machine do not share.
OF_THE_CLOCK = {"seconds", "samples_per_second", "peak_memory_mb"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def arguments(cache: Path, output: Path) -> list[str]:
    return [*SETTINGS, "--cache", str(cache), "--output", str(output)]


@pytest.fixture(scope="module")
def undisturbed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing happened to, and how long it took once everything was prepared."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(arguments(cache, folder / "first")) == 0
    begun = time.monotonic()
    process = start(arguments(cache, folder / "second"), folder / "second")
    process.join()
    assert process.exitcode == 0
    assert_same_end(folder / "second", folder / "first")
    return folder / "first", time.monotonic() - begun


def assert_same_end(output: Path, expected: Path) -> None:
    """Weights to the bit, the same lines of metrics, the same table."""
    for name in ("baseline.pt", "gss-round-1.pt", "checkpoints/best.pt"):
        own, other = read_checkpoint(output / name), read_checkpoint(expected / name)
        for kind in ("weights", "averaged"):
            assert own[kind].keys() == other[kind].keys()
            assert all(torch.equal(own[kind][key], other[kind][key]) for key in other[kind]), (name, kind)
        assert own["position"] == other["position"]
    assert metrics(output) == metrics(expected)
    for name in ("subsets.csv", "evaluation/table.csv", "evaluation/subjects.csv"):
        assert (output / name).read_bytes() == (expected / name).read_bytes()
    assert names(output) == names(expected)


def metrics(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in OF_THE_CLOCK} for line in lines]


def names(output: Path) -> set[str]:
    """All files but TensorBoard's, of which every life has one."""
    return {str(path.relative_to(output)) for path in output.rglob("*") if path.parent.name != "tensorboard"}


def test_the_metrics_have_every_line(undisturbed: tuple[Path, float]) -> None:
    lines = metrics(undisturbed[0])
    assert [line["step"] for line in lines if line["kind"] == "steps"] == [2, 4, 6, 8, 10, 12, 14, 15]
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2, 3, 4, 5]
    assert [line["epoch"] for line in lines if line["kind"] == "validation"] == [2, 4]


@pytest.mark.parametrize("seed", range(2))
def test_killed_before_any_operation_on_its_files(
    seed: int, cache: Path, undisturbed: tuple[Path, float], tmp_path: Path
) -> None:
    draws = random.Random(seed)
    output = tmp_path / "run"
    kills = live_until_the_end(cache, output, lambda: start(arguments(cache, output), output, draws.randint(1, 80)))
    assert kills >= 3
    assert_same_end(output, undisturbed[0])


def test_killed_at_any_moment(cache: Path, undisturbed: tuple[Path, float], tmp_path: Path) -> None:
    expected, seconds = undisturbed
    draws = random.Random(7)
    output = tmp_path / "run"

    def life() -> Any:
        process = start(arguments(cache, output), output)
        process.join(draws.uniform(0.1, 0.9) * seconds)
        if process.exitcode is None:
            process.kill()
        return process

    live_until_the_end(cache, output, life)
    assert_same_end(output, expected)


def live_until_the_end(cache: Path, output: Path, life: Any) -> int:
    """How many lives were cut short."""
    for kills in range(100):
        process = life()
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL
    raise AssertionError("100 lives were not enough")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_saves_and_says_so_by_the_exit_status(
    number: signal.Signals, status: int, cache: Path, undisturbed: tuple[Path, float], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    process = start(arguments(cache, output), output)
    wait_for(output / "metrics.jsonl", process)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == status
    saved = [path.name for path in (output / "checkpoints").glob("step-*.pt")]
    assert saved
    assert not (output / "subsets.md").exists()
    assert main(arguments(cache, output)) == 0
    assert_same_end(output, undisturbed[0])


def wait_for(metrics_file: Path, process: Any) -> None:
    """Until the training has written something."""
    while not (metrics_file.exists() and metrics_file.stat().st_size):
        assert process.is_alive()
        time.sleep(0.005)


def test_a_second_process_on_the_same_folder_refuses(
    cache: Path, undisturbed: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    process = start(arguments(cache, output), output)
    wait_for(output / "metrics.jsonl", process)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        assert main(arguments(cache, output)) == 2
    finally:
        os.kill(process.pid, signal.SIGCONT)
    said = capsys.readouterr().err
    assert str(output) in said
    assert str(process.pid) in said
    process.join()
    assert process.exitcode == 0
    assert_same_end(output, undisturbed[0])


def test_a_damaged_checkpoint_is_said_and_the_one_before_used(
    cache: Path, undisturbed: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    process = start(arguments(cache, output), output)
    while len(list((output / "checkpoints").glob("step-*.pt"))) < 2:
        assert process.is_alive()
        time.sleep(0.005)
    process.kill()
    process.join()
    newest = max((output / "checkpoints").glob("step-*.pt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert main(arguments(cache, output)) == 0
    assert newest.name in capsys.readouterr().out
    assert_same_end(output, undisturbed[0])


def test_other_settings_do_not_go_on_with_it(
    cache: Path, undisturbed: tuple[Path, float], capsys: pytest.CaptureFixture[str]
) -> None:
    before = metrics(undisturbed[0])
    assert main([*arguments(cache, undisturbed[0]), "--learning-rate", "0.02"]) == 2
    assert "--learning-rate" in capsys.readouterr().err
    assert metrics(undisturbed[0]) == before


def test_a_finished_run_is_left_as_it_is(
    cache: Path, undisturbed: tuple[Path, float], capsys: pytest.CaptureFixture[str]
) -> None:
    before = metrics(undisturbed[0])
    assert main(arguments(cache, undisturbed[0])) == 0
    assert "finished already" in capsys.readouterr().out
    assert metrics(undisturbed[0]) == before


def test_without_resuming_a_used_folder_is_refused(
    cache: Path, undisturbed: tuple[Path, float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(cache, undisturbed[0]), "--resume", "never"]) == 2
    assert "--output" in capsys.readouterr().err
