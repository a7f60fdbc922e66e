"""A whole run in two processes, as `torchrun` starts them."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from gss_train.common.processes import Processes
from gss_train.runs.checkpoints import read_checkpoint
from tests.gss_train.training.tiny import SETTINGS, metrics, run, write_scans

# RFNet draws nothing itself: what a sample is given does not depend on who trains it.
MORE = [
    *("--network", "rfnet", "--width", "4", "--batch-size", "4", "--learning-rate", "0.001", "--gather-every", "2"),
    *("--validate-every", "2", "--validation-subjects", "2", "--final-evaluation", "dice"),
]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("data") / "scans", 6)


@pytest.fixture(scope="module")
def alone(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("alone") / "run"
    assert run(scans, output, *MORE) == 0
    return output


@pytest.fixture(scope="module")
def together(scans: Path, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run folder of two processes, and what they said."""
    output = tmp_path_factory.mktemp("together") / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "gss_train.main", *SETTINGS, *MORE, "--data-root", str(scans), "--output", str(output)]
    command += ["--cache", str(scans.with_name("cache"))]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def assert_same_run(output: Path, expected: Path) -> None:
    """But for rounding, and what it makes of single voxels."""
    for name in ("baseline.pt", "gss-round-1.pt"):
        own, other = (read_checkpoint(folder / name)["weights"] for folder in (output, expected))
        first, second = (torch.cat([weight.flatten() for weight in weights.values()]) for weights in (own, other))
        # Adam takes a first step of full length also where a gradient is nothing but rounding.
        assert (first - second).norm() < 0.02 * second.norm()
    for kind in ("steps", "epoch"):
        own_lines, other_lines = metrics(output, kind), metrics(expected, kind)
        assert [line["step"] for line in own_lines] == [line["step"] for line in other_lines]
        for own, other in zip(own_lines, other_lines, strict=True):
            assert own["terms"] == pytest.approx(other["terms"], rel=5e-3, abs=1e-4)
    for own, other in zip(metrics(output, "validation"), metrics(expected, "validation"), strict=True):
        assert own["mean_dice"] == pytest.approx(other["mean_dice"], abs=5e-3)
    tables = [(folder / "subsets.csv").read_text().splitlines() for folder in (output, expected)]
    own_rows, other_rows = ([row.split(",")[:2] for row in table] for table in tables)
    assert own_rows == other_rows


def test_two_processes_train_what_one_does(together: tuple[Path, str], alone: Path) -> None:
    assert_same_run(together[0], alone)
    assert read_checkpoint(together[0] / "gss-round-1.pt")["position"]["step"] == 4


def test_the_first_process_alone_speaks_and_writes(together: tuple[Path, str], alone: Path) -> None:
    output, said = together
    assert said.count("Stages: ") == 1
    assert said.count("Done in ") == 1
    assert "2 at a time" in said
    assert {path.name for path in output.iterdir()} == {path.name for path in alone.iterdir()}


def test_one_process_goes_on_with_what_two_began(
    scans: Path, together: tuple[Path, str], alone: Path, tmp_path: Path
) -> None:
    """As if they had been killed after the first stage."""
    output = tmp_path / "run"
    shutil.copytree(together[0], output)
    for name in ("subsets.md", "gss-round-1.pt", "checkpoints/step-00000004.pt"):
        (output / name).unlink()
    assert run(scans, output, *MORE) == 0
    assert_same_run(output, alone)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_finished_run_is_shown_by_the_first_process(
    rank: int, scans: Path, alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def join(_device_type: str) -> Iterator[Processes]:
        yield Processes(rank, 2)

    monkeypatch.setattr("gss_train.training.run.join_processes", join)
    monkeypatch.setenv("RANK", str(rank))
    assert run(scans, alone, *MORE) == 0
    said = capsys.readouterr().out
    shown = 1 - rank
    assert said.count("finished already") == said.count((alone / "subsets.md").read_text()) == shown
    assert said.count("Done in ") == shown


def test_a_process_that_breaks_down_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun ends all when one ends, and shows what that one left in its file as the root cause."""

    def break_down(*_: Any) -> None:
        raise RuntimeError("the second process has broken down")

    monkeypatch.setattr("gss_train.training.run.run_training", break_down)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setattr(sys, "argv", ["gss_train.main", "--dataset", "brats2018"])
    monkeypatch.delitem(sys.modules, "gss_train.main", raising=False)
    with pytest.raises(RuntimeError, match="broken down"):
        runpy.run_module("gss_train.main", run_name="__main__")
    cause = json.loads((tmp_path / "error.json").read_text())["message"]
    assert "the second process has broken down" in cause["message"]
    assert "Traceback" in cause["extraInfo"]["py_callstack"]
