from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import gss_train.training.loop
from gss_train.main import main
from gss_train.runs.checkpoints import read_checkpoint
from tests.gss_train.training.tiny import SETTINGS, metrics, one_processor, run, write_scans


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("data") / "scans", 7)


def split_sizes(output: Path) -> dict[str, int]:
    split = json.loads((output / "split.json").read_text())
    return {part: len(split[part]) for part in ("train", "validation", "test")}


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("mmformer", ["--crop-size", "32", "--gss", "--steps-per-epoch", "1", "--batch-size", "1"]),
        ("robustseg", ["--no-gss", "--activation-checkpointing", "--precision", "bfloat16"]),
        ("uhved", ["--gss"]),
    ],
)
def test_every_network_trains_and_is_scored(network: str, arguments: list[str], scans: Path, tmp_path: Path) -> None:
    """RFNet has tests of its own."""
    output = tmp_path / "run"
    few = ["--max-test-subjects", "1", "--final-evaluation", "dice"]
    assert run(scans, output, "--network", network, *arguments, *few) == 0
    epochs = metrics(output, "epoch")
    gss = "--gss" in arguments
    assert len(epochs) == (2 if gss else 1)
    for line in epochs:
        assert all(math.isfinite(value) for value in line["terms"].values())
        assert line["terms"]["separate"] > 0
    assert [line["terms"]["gss"] != 0 for line in epochs] == ([False, True] if gss else [False])
    assert (epochs[0]["terms"]["regulariser"] > 0) == (network in {"robustseg", "uhved"})
    assert (output / "subsets.md").read_text().splitlines()[17].startswith("| mean |")


def test_a_run_without_data_says_so_and_leaves_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    phantom = ["--phantom-subjects", "4", "--phantom-size", "24", "24", "24", "--phantom-test-subjects", "1"]
    more = ["--dataset", "brats2015", "--tensorboard", "--figure-every", "2", "--final-evaluation", "dice"]
    with one_processor():
        folders = ["--cache", str(tmp_path / "cache"), "--output", str(output)]
        assert main([*SETTINGS, *phantom, *more, *folders]) == 0
    printed = capsys.readouterr().out
    assert "PHANTOM" in printed
    assert "comparable" not in printed
    assert "Preset quick" in printed
    table = (output / "subsets.md").read_text()
    assert table in printed
    assert table.splitlines()[17].startswith("| mean |")
    assert "- Split: seeded, --split-seed 0\n- Weights: last, after the last step\n" in table
    assert table.splitlines()[0] == "| FLAIR | T1ce | T1 | T2 | WT | TC | ET |"
    assert len((output / "subsets.csv").read_text().splitlines()) == 1 + 2 * 16
    assert json.loads((output / "config.json").read_text())["data"]["dataset"] == "brats2015"
    assert json.loads((output / "environment.json").read_text())["packages"]["torch"] == torch.__version__
    assert split_sizes(output) == {"train": 2, "validation": 1, "test": 1}
    assert [(line["kind"], line.get("stage")) for line in metrics(output)] == [
        ("epoch", "baseline"),
        ("steps", "baseline"),
        ("epoch", "GSS round 1"),
        ("steps", "GSS round 1"),
        ("test", None),
    ]
    assert {path.name for path in output.glob("*.pt")} == {"baseline.pt", "gss-round-1.pt"}
    for picture in (output / "summary.png", output / "figures" / "epoch-0002.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert list((output / "tensorboard").glob("events*"))
    assert read_checkpoint(output / "gss-round-1.pt")["position"]["step"] == 4
    assert (output / "checkpoints" / "step-00000004.pt").exists()


@pytest.fixture(scope="module")
def baseline(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without GSS, with seed 3."""
    output = tmp_path_factory.mktemp("runs") / "baseline"
    assert run(scans, output, "--no-gss", "--seed", "3") == 0
    return output


def test_a_seed_repeats_a_run_and_another_does_not(scans: Path, baseline: Path, tmp_path: Path) -> None:
    for seed in ("3", "4"):
        assert run(scans, tmp_path / seed, "--no-gss", "--seed", seed) == 0
    first, again, other = (
        read_checkpoint(output / "baseline.pt")["weights"] for output in (baseline, tmp_path / "3", tmp_path / "4")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_init_from_replaces_the_baseline_stage(
    scans: Path, baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = ["--init-from", str(baseline / "baseline.pt")]
    assert run(scans, tmp_path / "gss", *init) == 0
    assert [line["stage"] for line in metrics(tmp_path / "gss", "epoch")] == ["GSS round 1"]
    # Another split would test on subjects that the checkpoint was trained on.
    assert run(scans, tmp_path / "leak", *init, "--split-seed", "6") == 2
    assert "--split-seed" in capsys.readouterr().err


def test_no_more_subjects_are_used_than_asked_for(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And they are the user's own."""
    few = ["--max-training-subjects", "1", "--max-test-subjects", "1", "--cache", str(tmp_path / "cache")]
    assert run(scans, tmp_path / "run", *few, "--no-gss") == 0
    assert split_sizes(tmp_path / "run") == {"train": 1, "validation": 1, "test": 1}
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    prepared = [path.stem for path in tmp_path.glob("cache/prepared/*/*.npy")]
    assert sorted(prepared) == sorted(split["train"] + split["validation"] + split["test"])
    printed = capsys.readouterr().out
    assert f"7 subjects found in {scans}" in printed
    assert "PHANTOM" not in printed
    assert not (tmp_path / "cache" / "phantom").exists()


def test_bad_subjects_stop_the_run_or_are_left_out_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_scans(tmp_path / "raw", 5)
    (tmp_path / "split.csv").write_text(
        "".join(
            f"BraTS20_Training_{number:03},{part}\n"
            for number, part in enumerate(("Training", "Training", "Validation", "Inference", "Inference"), start=1)
        )
    )
    damaged = next(raw.rglob("BraTS20_Training_002_t1.nii"))
    damaged.write_bytes(damaged.read_bytes()[:5000])
    arguments = ["--no-gss", "--split-file", str(tmp_path / "split.csv")]
    assert run(raw, tmp_path / "run", *arguments) == 2
    assert damaged.name in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run(raw, tmp_path / "run", *arguments, "--skip-bad") == 0
    assert "1 of 5 subjects left out: BraTS20_Training_002" in capsys.readouterr().out
    (fault,) = json.loads((tmp_path / "run" / "left_out.json").read_text())
    assert (fault["subject"], fault["file"]) == ("BraTS20_Training_002", str(damaged))
    assert json.loads((tmp_path / "run" / "split.json").read_text())["train"] == ["BraTS20_Training_001"]
    damaged.unlink()
    for number in (4, 5):
        next(raw.rglob(f"BraTS20_Training_{number:03}_seg.nii")).write_bytes(b"")
    assert run(raw, tmp_path / "other", *arguments, "--skip-bad") == 2
    assert "0 test subjects" in capsys.readouterr().err


@pytest.mark.parametrize("exists", [True, False])
def test_a_missing_or_empty_data_root_shows_the_expected_layout(
    exists: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "raw"
    if exists:
        root.mkdir()
    assert run(root, tmp_path / "run", "--dataset", "brats2015") == 2
    message = capsys.readouterr().err
    assert str(root) in message
    assert "VSD.Brain" in message
    assert "HGG" in message
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_is_not_overwritten(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert run(scans, tmp_path / "run") == 2
    assert "--output" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "abacus"], "--device"),
        (["--crop-size", "20"], "crop_size"),
        (["--init-from", "no-such.pt"], "no-such.pt"),
    ],
)
def test_what_cannot_work_stops_before_any_data_is_touched(
    arguments: list[str], message: str, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scans, tmp_path / "run", *arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "subjects found" not in said.out
    assert not (tmp_path / "run").exists()


def test_a_full_memory_says_which_settings_help(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("gss_train.training.loop.training_step", fill_memory)
    assert run(scans, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the memory is full")
    assert "--activation-checkpointing" in said
    assert "were expected" in said


def test_rows_of_bad_numbers_end_the_run_and_leave_the_batches(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights are those of the last good checkpoint, and the batches those that the network was given."""
    schedule = ["--no-gss", "--epochs", "4", "--max-bad-steps", "2", "--gather-every", "1"]
    given: list[torch.Tensor] = []
    augment = gss_train.training.loop.augment

    def spoil(image: torch.Tensor, label: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = augment(image, label, *rest)
        given.append(image.clone())
        return (torch.full_like(image, math.nan) if len(given) in {2, *range(5, 9)} else image), label

    monkeypatch.setattr("gss_train.training.loop.augment", spoil)
    output = tmp_path / "run"
    assert run(scans, output, *schedule) == 2
    said = capsys.readouterr()
    assert "--max-bad-steps: 3 steps in a row, until step 7" in said.err
    assert "--learning-rate" in said.err
    assert "Step 2: loss or gradient is not finite" in said.out
    lines = metrics(output, "bad_step")
    assert [line["step"] for line in lines] == [2, 5, 6, 7]
    training = set(json.loads((output / "split.json").read_text())["train"])
    for line in lines:
        dump = read_checkpoint(output / line["file"])
        assert torch.equal(dump["image"], given[line["step"] - 1])
        assert dump["subjects"] == line["subjects"]
        assert set(dump["subjects"]) <= training
    newest = max((output / "checkpoints").glob("step-*.pt"))
    assert newest.name == "step-00000006.pt"
    weights = read_checkpoint(newest)["weights"]
    assert all(torch.isfinite(weight).all() for weight in weights.values())
