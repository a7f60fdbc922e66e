"""A run that the version before began is gone on with, and its weights are read."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from gss_train import report
from gss_train.evaluate import main as evaluate
from gss_train.main import main as train
from gss_train.runs.checkpoints import read_checkpoint
from gss_train.runs.stored import read_stored
from gss_train.runs.weights import load_trained
from tests.gss_train.training.tiny import one_processor, small_figures

DATA = Path(__file__).parents[2] / "data"
# U-HVED, stopped by SIGTERM after step 5 of 6. The expected lines are the last ones of the same run undisturbed.
SETTINGS = [
    *("--dataset", "brats2018", "--device", "cpu", "--network", "uhved", "--width", "2", "--crop-size", "16"),
    *("--phantom-subjects", "5", "--phantom-size", "24", "24", "24", "--phantom-test-subjects", "1"),
    *("--baseline-epochs", "1", "--rounds", "1", "--epochs", "2", "--steps-per-epoch", "2", "--batch-size", "2"),
    *("--validate-every", "0", "--figure-every", "0", "--no-tensorboard", "--gather-every", "1"),
    *("--keep-checkpoints", "1", "--seed", "3"),
]
# Of the machine.
ELSEWHERE = {"samples_per_second", "peak_memory_mb", "seconds"}


def unpack(folder: Path) -> Path:
    with tarfile.open(DATA / "run_before.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "stopped"


def lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ELSEWHERE} for line in found]


def assert_close(own: object, expected: object, where: str) -> None:
    """Numbers nearly, for another processor computes in another order; all else exactly."""
    if isinstance(expected, dict):
        assert isinstance(own, dict)
        assert own.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_close(own[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(own, list)
        for number, (mine, value) in enumerate(zip(own, expected, strict=True)):
            assert_close(mine, value, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert own == pytest.approx(expected, rel=1e-3, abs=1e-3), where
    else:
        assert own == expected, where


def test_a_stopped_run_of_the_version_before_has_its_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = unpack(tmp_path)
    trained = load_trained(stopped, torch.device("cpu"))
    assert (trained.network_name, trained.width, trained.crop_size) == ("uhved", 2, (16, 16, 16))
    weights = read_checkpoint(stopped / "checkpoints" / "step-00000005.pt")["weights"]
    assert all(torch.equal(value, weights[name]) for name, value in trained.network.state_dict().items())
    assert "its training is not at its end; these are the weights after step 5" in capsys.readouterr().out


def test_a_stopped_run_of_the_version_before_ends_as_it_would_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, cache = unpack(tmp_path), ["--cache", str(tmp_path / "cache")]
    before = lines(output / "metrics.jsonl")
    with one_processor(), small_figures():
        assert train([*SETTINGS, *cache, "--output", str(output)]) == 0
    found, expected = lines(output / "metrics.jsonl"), lines(DATA / "run_before_expected.jsonl")
    assert found[:-3] == before
    assert_close(found[-3:], expected, "metrics")
    capsys.readouterr()
    stored = read_stored(output)
    assert stored.run is not None
    assert (stored.network_name, stored.num_categories, stored.run.folder) == ("uhved", 4, output)
    assert "not at its end" not in capsys.readouterr().out
    # What its figures look like is tested elsewhere.
    monkeypatch.setitem(vars(report), "save_evaluation_figures", lambda *_: [])
    assert evaluate([str(output), "--device", "cpu", "--no-hd95", "--view-subjects", "0"]) == 0
    assert (output / "evaluation-no-hd95" / "scores.json").exists()
