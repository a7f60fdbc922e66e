from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import gss_train.training.loop
from gss_train.main import main
from gss_train.phantom import generate_phantoms
from gss_train.runs.checkpoint_file import read_checkpoint

SMALL = [
    *("--phantom-subjects", "4", "--phantom-size", "24", "24", "24", "--phantom-test-subjects", "1"),
    *("--crop-size", "16", "--width", "4", "--batch-size", "2", "--device", "cpu"),
    *("--baseline-epochs", "1", "--epochs", "1", "--steps-per-epoch", "2"),
    *("--no-tensorboard", "--figure-every", "0"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def train(cache: Path, output: Path, *arguments: str) -> int:
    return main([*SMALL, "--cache", str(cache), "--output", str(output), *arguments])


def metrics(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("network", "dataset", "gss"),
    [
        ("mmformer", "brats2015", "--gss"),
        ("mmformer", "brats2018", "--no-gss"),
        ("robustseg", "brats2018", "--gss"),
        ("robustseg", "brats2015", "--no-gss"),
        ("uhved", "brats2020", "--gss"),
        ("uhved", "brats2015", "--no-gss"),
    ],
)
def test_every_network_trains_and_is_scored(network: str, dataset: str, gss: str, cache: Path, tmp_path: Path) -> None:
    """RFNet, with all data sets, has tests of its own."""
    output = tmp_path / "run"
    size = ["--crop-size", "32", "--phantom-size", "32", "32", "32"] if network == "mmformer" else []
    width = ["--width", "2"] if network == "mmformer" else []
    lean = ["--activation-checkpointing", "--precision", "bfloat16"] if gss == "--no-gss" else []
    arguments = ["--dataset", dataset, "--network", network, gss, *size, *width, *lean]
    assert train(cache, output, *arguments) == 0
    epochs = [line for line in metrics(output) if line["kind"] == "epoch"]
    assert len(epochs) == (2 if gss == "--gss" else 1)
    for line in epochs:
        assert all(math.isfinite(value) for value in line["terms"].values())
        assert line["terms"]["separate"] > 0
    assert (epochs[-1]["terms"]["gss"] != 0) == (gss == "--gss")
    assert (epochs[0]["terms"]["regulariser"] > 0) == (network in {"robustseg", "uhved"})
    assert len((output / "subsets.md").read_text().splitlines()) == 18


@pytest.mark.parametrize("dataset", ["brats2015", "brats2018", "brats2020"])
def test_a_run_without_data_says_so_and_leaves_everything(
    dataset: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert train(cache, output, "--dataset", dataset, "--tensorboard", "--figure-every", "2") == 0
    printed = capsys.readouterr().out
    assert "PHANTOM" in printed
    assert "Preset quick" in printed
    table = (output / "subsets.md").read_text()
    assert table in printed
    assert len(table.splitlines()) == 18
    assert table.splitlines()[0] == "| FLAIR | T1ce | T1 | T2 | WT | TC | ET |"
    assert len((output / "subsets.csv").read_text().splitlines()) == 1 + 2 * 16
    assert json.loads((output / "config.json").read_text())["data"]["dataset"] == dataset
    assert json.loads((output / "environment.json").read_text())["packages"]["torch"] == torch.__version__
    split = json.loads((output / "split.json").read_text())
    assert {part: len(names) for part, names in split.items()} == {"train": 2, "validation": 1, "test": 1}
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


def test_gss_is_in_the_objective_only_where_asked(cache: Path, tmp_path: Path) -> None:
    assert train(cache, tmp_path / "gss", "--dataset", "brats2018") == 0
    baseline_epoch, gss_epoch = (line for line in metrics(tmp_path / "gss") if line["kind"] == "epoch")
    assert baseline_epoch["terms"]["gss"] == 0
    assert gss_epoch["terms"]["gss"] != 0
    assert train(cache, tmp_path / "baseline", "--dataset", "brats2018", "--no-gss") == 0
    epochs = [line for line in metrics(tmp_path / "baseline") if line["kind"] == "epoch"]
    assert [line["terms"]["gss"] for line in epochs] == [0]


def test_a_seed_repeats_a_run_and_another_does_not(cache: Path, tmp_path: Path) -> None:
    for name, seed in (("first", "3"), ("again", "3"), ("other", "4")):
        assert train(cache, tmp_path / name, "--dataset", "brats2018", "--seed", seed) == 0
    first, again, other = (
        read_checkpoint(tmp_path / n / "gss-round-1.pt")["weights"] for n in ("first", "again", "other")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_init_from_replaces_the_baseline_stage(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(cache, tmp_path / "baseline", "--dataset", "brats2018", "--no-gss") == 0
    checkpoint = str(tmp_path / "baseline" / "baseline.pt")
    assert train(cache, tmp_path / "gss", "--dataset", "brats2018", "--init-from", checkpoint) == 0
    assert [line["stage"] for line in metrics(tmp_path / "gss") if line["kind"] == "epoch"] == ["GSS round 1"]
    # Another split would test on subjects that the checkpoint was trained on.
    leaking = ["--dataset", "brats2018", "--init-from", checkpoint, "--split-seed", "5"]
    assert train(cache, tmp_path / "leak", *leaking) == 2
    assert "--split-seed" in capsys.readouterr().err


def test_no_more_subjects_are_used_than_asked_for(cache: Path, tmp_path: Path) -> None:
    limits = ["--phantom-subjects", "6", "--phantom-test-subjects", "2"]
    few = ["--max-training-subjects", "1", "--max-test-subjects", "1"]
    assert train(cache, tmp_path / "run", "--dataset", "brats2018", *limits, *few) == 0
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert {part: len(names) for part, names in split.items()} == {"train": 1, "validation": 1, "test": 1}
    prepared = [path.stem for path in cache.glob("prepared/brats2018-6-*/*.npy")]
    assert sorted(prepared) == sorted(split["train"] + split["validation"] + split["test"])


def test_the_users_own_folder_is_read(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "MICCAI_BraTS2020_TrainingData"
    generate_phantoms("brats2020", raw, 4, 1, (24, 24, 24), compressed=False)
    arguments = ["--dataset", "brats2020", "--data-root", str(raw), "--no-gss"]
    assert train(tmp_path / "cache", tmp_path / "run", *arguments) == 0
    printed = capsys.readouterr().out
    assert f"4 subjects found in {raw}" in printed
    assert "PHANTOM" not in printed
    assert not (tmp_path / "cache" / "phantom").exists()


def test_bad_subjects_stop_the_run_or_are_left_out_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    generate_phantoms("brats2020", raw, 5, 1, (24, 24, 24), compressed=False)
    (tmp_path / "split.csv").write_text(
        "".join(
            f"BraTS20_Training_{number:03},{part}\n"
            for number, part in enumerate(("Training", "Training", "Validation", "Inference", "Inference"), start=1)
        )
    )
    damaged = next(raw.rglob("BraTS20_Training_002_t1.nii"))
    damaged.write_bytes(damaged.read_bytes()[:5000])
    arguments = ["--dataset", "brats2020", "--data-root", str(raw), "--no-gss"]
    arguments += ["--split-file", str(tmp_path / "split.csv")]
    assert train(tmp_path / "cache", tmp_path / "run", *arguments) == 2
    assert damaged.name in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert train(tmp_path / "cache", tmp_path / "run", *arguments, "--skip-bad") == 0
    assert "1 of 5 subjects left out: BraTS20_Training_002" in capsys.readouterr().out
    (fault,) = json.loads((tmp_path / "run" / "left_out.json").read_text())
    assert (fault["subject"], fault["file"]) == ("BraTS20_Training_002", str(damaged))
    assert json.loads((tmp_path / "run" / "split.json").read_text())["train"] == ["BraTS20_Training_001"]
    damaged.with_name("BraTS20_Training_002_t1.nii").unlink()
    for number in (4, 5):
        next(raw.rglob(f"BraTS20_Training_{number:03}_seg.nii")).write_bytes(b"")
    assert train(tmp_path / "cache", tmp_path / "other", *arguments, "--skip-bad") == 2
    assert "0 test subjects" in capsys.readouterr().err


@pytest.mark.parametrize("exists", [True, False])
def test_a_missing_or_empty_data_root_shows_the_expected_layout(
    exists: bool, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "raw"
    if exists:
        root.mkdir()
    assert train(cache, tmp_path / "run", "--dataset", "brats2015", "--data-root", str(root)) == 2
    message = capsys.readouterr().err
    assert str(root) in message
    assert "VSD.Brain" in message
    assert "HGG" in message
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_is_not_overwritten(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert train(cache, tmp_path / "run", "--dataset", "brats2015") == 2
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
    arguments: list[str], message: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(cache, tmp_path / "run", "--dataset", "brats2015", *arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "subjects found" not in said.out
    assert not (tmp_path / "run").exists()


def test_a_full_memory_says_which_settings_help(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("gss_train.training.loop.training_step", fill_memory)
    assert train(cache, tmp_path / "run", "--dataset", "brats2018") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the memory is full")
    assert "--activation-checkpointing" in said
    assert said.count("x of the memory") == 3


def test_rows_of_bad_numbers_end_the_run_and_leave_the_batches(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    assert train(cache, output, "--dataset", "brats2018", *schedule) == 2
    said = capsys.readouterr()
    assert "--max-bad-steps: 3 steps in a row, until step 7" in said.err
    assert "--learning-rate" in said.err
    assert "Step 2: loss or gradient is not finite" in said.out
    lines = [line for line in metrics(output) if line["kind"] == "bad_step"]
    assert [line["step"] for line in lines] == [2, 5, 6, 7]
    prepared = {path.stem for path in cache.glob("prepared/brats2018-4-*/*.npy")}
    for line in lines:
        dump = read_checkpoint(output / line["file"])
        assert torch.equal(dump["image"], given[line["step"] - 1])
        assert dump["subjects"] == line["subjects"]
        assert set(dump["subjects"]) <= prepared
    newest = max((output / "checkpoints").glob("step-*.pt"))
    assert newest.name == "step-00000006.pt"
    weights = read_checkpoint(newest)["weights"]
    assert all(torch.isfinite(weight).all() for weight in weights.values())
