"""Whole runs in two processes, as `torchrun` starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gss_train.main import main
from gss_train.runs.checkpoint_file import read_checkpoint

# RFNet draws nothing itself: what a sample is given does not depend on who trains it.
SETTINGS = [
    *("--dataset", "brats2018", "--device", "cpu", "--network", "rfnet", "--width", "4", "--crop-size", "16"),
    *("--phantom-subjects", "6", "--phantom-size", "24", "24", "24", "--phantom-test-subjects", "2"),
    *("--baseline-epochs", "1", "--rounds", "1", "--epochs", "2", "--steps-per-epoch", "2", "--batch-size", "4"),
    *("--gather-every", "2", "--validate-every", "1", "--validation-subjects", "2", "--figure-every", "0"),
    *("--no-tensorboard", "--learning-rate", "0.001"),
]
FAILING = Path(__file__).parent / "failing_rank.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def arguments(cache: Path, output: Path) -> list[str]:
    return [*SETTINGS, "--cache", str(cache), "--output", str(output)]


@pytest.fixture(scope="module")
def alone(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("alone") / "run"
    assert main(arguments(cache, output)) == 0
    return output


def torchrun(program: list[str], **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *program]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


@pytest.fixture(scope="module")
def together(cache: Path, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder of two processes, and what they said."""
    output = tmp_path_factory.mktemp("together") / "run"
    process = torchrun(["-m", "gss_train.main", *arguments(cache, output)])
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output, said


def lines(output: Path, kind: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def assert_same_run(output: Path, expected: Path) -> None:
    """But for rounding, and what it makes of single voxels."""
    for name in ("baseline.pt", "gss-round-1.pt"):
        own, other = (read_checkpoint(folder / name)["weights"] for folder in (output, expected))
        first, second = (torch.cat([weight.flatten() for weight in weights.values()]) for weights in (own, other))
        # Adam takes a first step of full length also where a gradient is nothing but rounding.
        assert (first - second).norm() < 0.02 * second.norm()
    for kind in ("steps", "epoch"):
        own_lines, other_lines = lines(output, kind), lines(expected, kind)
        assert [line["step"] for line in own_lines] == [line["step"] for line in other_lines]
        for own, other in zip(own_lines, other_lines, strict=True):
            assert own["terms"] == pytest.approx(other["terms"], rel=5e-3, abs=1e-4)
    for own, other in zip(lines(output, "validation"), lines(expected, "validation"), strict=True):
        assert own["mean_dice"] == pytest.approx(other["mean_dice"], abs=5e-3)
    tables = [(folder / "subsets.csv").read_text().splitlines() for folder in (output, expected)]
    own_rows, other_rows = ([row.split(",")[:2] for row in table] for table in tables)
    assert own_rows == other_rows


def test_two_processes_train_what_one_does(together: tuple[Path, str], alone: Path) -> None:
    assert_same_run(together[0], alone)


def test_the_first_process_alone_speaks_and_writes(together: tuple[Path, str], alone: Path) -> None:
    output, said = together
    assert said.count("Stages: ") == 1
    assert said.count("Done in ") == 1
    assert "2 at a time" in said
    assert {path.name for path in output.iterdir()} == {path.name for path in alone.iterdir()}


def test_a_finished_run_is_shown_by_the_first_process(cache: Path, together: tuple[Path, str]) -> None:
    process = torchrun(["-m", "gss_train.main", *arguments(cache, together[0])])
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert said.count("finished already") == 1
    assert (together[0] / "subsets.md").read_text() in said


def test_one_process_goes_on_with_what_two_began(cache: Path, alone: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = torchrun(["-m", "gss_train.main", *arguments(cache, output)])
    while not (output / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    # torchrun passes it on.
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "SIGTERM: finishing this step, then saving" in errors
    assert list((output / "checkpoints").glob("step-*.pt"))
    assert not (output / "subsets.md").exists()
    assert main(arguments(cache, output)) == 0
    assert_same_run(output, alone)


def test_a_process_that_breaks_down_ends_all_and_is_shown(cache: Path, alone: Path, tmp_path: Path) -> None:
    process = torchrun([str(FAILING), *arguments(cache, tmp_path / "run")])
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" in errors
    root_cause = errors[errors.rindex("Root Cause") :]
    assert "rank      : 1" in root_cause
    assert "the second process has broken down" in root_cause


def test_the_weights_of_both_are_those_that_are_saved(together: tuple[Path, str]) -> None:
    content = read_checkpoint(together[0] / "gss-round-1.pt")
    assert content["position"]["step"] == 6
    assert all(torch.isfinite(weight).all() for weight in content["weights"].values())
