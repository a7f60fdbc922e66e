"""`python -m gss_train.evaluate` scores a run as the run itself does, and other networks as it is told."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gss_train import report as report_door
from gss_train.common.errors import UserError
from gss_train.data import published_lists
from gss_train.data.published_lists import PublishedSplit
from gss_train.evaluate import EvaluateArguments, main, plan
from gss_train.evaluation import read_evaluation
from gss_train.evaluation.subjects import choose_data, find_part
from gss_train.main import main as train
from gss_train.report.__main__ import main as report
from gss_train.runs.checkpoints import read_checkpoint, save_checkpoint
from gss_train.runs.stored import read_stored
from gss_train.runs.weights import export_network, load_trained
from tests.gss_train.common.killed import contents
from tests.gss_train.data.raw_files import make_head, write_subject
from tests.gss_train.training.tiny import one_processor, small_figures, write_scans

TINY = [
    *("--dataset", "brats2020", "--preset", "quick", "--spacing", "None", "--device", "cpu"),
    *("--no-gss", "--epochs", "1", "--width", "4"),
    *("--crop-size", "16", "--steps-per-epoch", "2", "--batch-size", "1", "--ema", "0.5", "--validate-every", "1"),
    *("--figure-every", "0", "--no-tensorboard", "--final-evaluation", "dice"),
]
PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw scans of three subjects."""
    folder = tmp_path_factory.mktemp("scans")
    for number in range(1, 4):
        write_subject(folder / f"BraTS20_Training_{number:03}", make_head((16, 16, 24), seed=number), ".nii")
    return folder


@pytest.fixture(scope="module")
def run(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with averaged weights, with one subject for each part."""
    folder = tmp_path_factory.mktemp("runs")
    with one_processor(), small_figures():
        arguments = ["--data-root", str(scans), "--cache", str(folder / "cache"), "--output", str(folder / "run")]
        assert train([*TINY, *arguments]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    path = run.parent / "tiny.pt"
    export_network(load_trained(run, torch.device("cpu")), path)
    return path


@pytest.fixture(scope="module")
def evaluation(run: Path) -> Path:
    """What the command makes of the run."""
    output = run.parent / "evaluation"
    assert main([str(run), "--device", "cpu", "--view-subjects", "1", "--no-hd95", "--output", str(output)]) == 0
    return output


def names(run: Path, part: str) -> list[str]:
    split: dict[str, list[str]] = json.loads((run / "split.json").read_text())
    return split[part]


def test_a_run_is_scored_as_it_scored_itself(run: Path, evaluation: Path) -> None:
    scores = json.loads((evaluation / "scores.json").read_text())
    assert scores["name"] == "run"
    assert scores["subjects"] == names(run, "test")
    with (run / "subsets.csv").open(newline="") as file:
        own = {(row["subject"], row["modalities"]): list(row.values())[2:] for row in csv.DictReader(file)}
    dice = np.array(scores["measures"]["dice"]["values"])
    expected = [[own[name, subset] for subset in scores["subsets"]] for name in scores["subjects"]]
    np.testing.assert_allclose(dice, np.array(expected, np.float64), atol=1e-6)
    assert 0 < dice.mean() < 1


def test_all_that_a_report_needs_is_written(run: Path, evaluation: Path) -> None:
    (test,) = names(run, "test")
    assert {"scores.json", "subjects.csv", "table.csv", "table.md"} <= {path.name for path in evaluation.iterdir()}
    assert [path.name for path in (evaluation / "subjects").iterdir()] == [f"{test}.npz"]
    assert {path.suffix for path in (evaluation / "figures").iterdir()} == {".png", ".svg"}
    settings = json.loads((evaluation / "scores.json").read_text())["settings"]
    assert (settings["network"], settings["weights"], settings["part"]) == ("rfnet", "last", "test")
    assert (settings["crop_size"], settings["weighting"], settings["flips"]) == ([16, 16, 16], "uniform", False)
    assert settings["seconds"] > 0
    assert settings["peak_memory_mb"] > 0


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_runs_own_split_is_found_whatever_the_file_is(
    run: Path, exported: Path, scans: Path, part: Any
) -> None:
    for path, stated in (
        (run, {}),
        (run / "baseline.pt", {}),
        (run, {"data_root": scans}),
        (run, {"data_root": scans, "dataset": "auto"}),
        (exported, {"data_root": scans}),
    ):
        stored = read_stored(path)
        data = choose_data(stored, stated)
        raw, split = find_part(data, part)
        assert raw.names == names(run, part)
        assert split is not None
        assert split.name == "seeded, --split-seed 0"
        # What the run has prepared is used again.
        assert stored.run is None or data.config.data.cache == stored.run.config.data.cache
    data = choose_data(read_stored(run), {})
    raw, split = find_part(data, "all")
    assert sorted(raw.names) == sorted(name for part in PARTS for name in names(run, part))
    assert split is None


def test_another_split_takes_the_place_of_the_runs(run: Path) -> None:
    stored = read_stored(run)
    tested = [
        name
        for fold in range(3)
        for name in find_part(choose_data(stored, {"fold": fold, "folds": 3}), "test")[0].names
    ]
    assert sorted(tested) == sorted(name for part in PARTS for name in names(run, part))


def test_a_published_split_can_take_the_place_of_the_runs(run: Path, exported: Path, scans: Path) -> None:
    for path, stated in (run, {}), (exported, {"data_root": scans}):
        data = choose_data(read_stored(path), {"split": "published", **stated})
        with pytest.raises(UserError, match=r"^--split published: 366 of the 369 subjects"):
            find_part(data, "test")
    with pytest.raises(UserError, match="--split: got published-1, but --dataset brats2020 has published"):
        choose_data(read_stored(run), {"split": "published-1"})
    # A stated seed asks for a seeded split, whatever the subjects are.
    for stated, split in (({"split_seed": 0}, "seeded"), ({}, "auto"), ({"fold": 0, "folds": 3}, "seeded")):
        assert choose_data(read_stored(exported), {"data_root": scans, **stated}).config.data.split == split


def publish(path: Path, scans: Path, parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a list of these subjects, in their order, for BraTS2020's published split."""
    names = sorted(folder.name for folder in scans.iterdir())
    lines = [f"{name},{part}\n" for name, part in zip(names, parts.split(), strict=True)]
    path.write_text("subject,part\n" + "".join(lines))
    tiny = PublishedSplit("published", "tiny published split", str(path))
    monkeypatch.setitem(published_lists._SPLITS, "brats2020", {"published": tiny})


def test_a_run_on_the_published_split_shows_published_averages_and_so_does_its_evaluation(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a list of the three subjects that there are."""
    publish(tmp_path / "list.csv", scans, "Training Validation Inference", monkeypatch)
    # Its figures are of no interest here.
    monkeypatch.setitem(vars(report_door), "save_evaluation_figures", lambda *_: [])
    arguments = ["--data-root", str(scans), "--cache", str(tmp_path / "cache")]
    with one_processor(), small_figures():
        assert train([*TINY, *arguments, "--output", str(tmp_path / "run")]) == 0
    assert "Split of tiny published split, --split published\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "split.json").read_text())["name"] == "published"
    beside = "beside published averages, tiny published split:"
    for name in ("subsets.md", "evaluation/table.md"):
        assert beside in (tmp_path / "run" / name).read_text()
    shared = [str(tmp_path / "run"), "--device", "cpu", "--no-hd95", "--view-subjects", "0"]
    for flags, shown in (([], True), (["--split", "published"], True), (["--part", "validation"], False)):
        assert main([*shared, *flags]) == 0
        assert (beside in capsys.readouterr().out) == shown

    # Nor is it shown by a list of other training subjects.
    publish(tmp_path / "other.csv", scans, "Validation Training Inference", monkeypatch)
    assert main([*shared, "--max-subjects", "1"]) == 0
    assert beside not in capsys.readouterr().out


def test_a_run_on_a_part_of_the_published_training_subjects_shows_no_published_averages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_scans(tmp_path / "scans", 4)
    publish(tmp_path / "list.csv", raw, "Training Training Validation Inference", monkeypatch)
    flags = ["--data-root", str(raw), "--cache", str(tmp_path / "cache"), "--max-training-subjects", "1"]
    with one_processor(), small_figures():
        assert train([*TINY, *flags, "--output", str(tmp_path / "run")]) == 0
    assert "published averages" not in (tmp_path / "run" / "subsets.md").read_text()
    assert "Split: tiny published split" in (tmp_path / "run" / "subsets.md").read_text()


def test_other_scans_than_the_runs_need_a_split_of_their_own(run: Path, scans: Path, tmp_path: Path) -> None:
    kept = next(folder for folder in scans.iterdir() if folder.name not in names(run, "test"))
    (tmp_path / kept.name).symlink_to(kept, target_is_directory=True)
    data = choose_data(read_stored(run), {"data_root": tmp_path})
    with pytest.raises(
        UserError, match=r"^--data-root: lacks 1 of the 1 test subjects of the run, such as .*--part all$"
    ):
        find_part(data, "test")
    assert find_part(data, "all")[0].names == [kept.name]


Refusal = tuple[list[str | Path], str]


def all_of_its_subjects(run: Path, exported: Path, scans: Path) -> Refusal:
    return [run, "--part", "all"], f"was trained on 1 of these 3 subjects, such as {names(run, 'train')[0]}"


def its_training_subjects_by_another_split(run: Path, exported: Path, scans: Path) -> Refusal:
    return [exported, "--data-root", scans, "--part", "all"], "--part train"


def no_scans_for_a_file(run: Path, exported: Path, scans: Path) -> Refusal:
    return [exported], "--data-root: is missing"


def no_network(run: Path, exported: Path, scans: Path) -> Refusal:
    return [run / "split.json"], f"{run / 'split.json'}: cannot be read as a checkpoint"


def a_taken_output(run: Path, exported: Path, scans: Path) -> Refusal:
    return [run, "--output", run], f"--output: {run} exists and is not"


def other_categories(run: Path, exported: Path, scans: Path) -> Refusal:
    return [run, "--dataset", "brats2015", "--data-root", scans], "--dataset: BraTS2015 has 5 categories"


def half_a_fold(run: Path, exported: Path, scans: Path) -> Refusal:
    return [run, "--fold", "0"], "--fold: needs --folds"


def no_such_device(run: Path, exported: Path, scans: Path) -> Refusal:
    return [run, "--device", "abacus"], "--device: got 'abacus'"


def no_such_weights(run: Path, exported: Path, scans: Path) -> Refusal:
    return [run, "--weights", "gss-round-2"], f"--weights: got gss-round-2, {run} has last, best, baseline"


def no_such_crop(run: Path, exported: Path, scans: Path) -> Refusal:
    return [run, "--crop-size", "20"], "multiple of 8"


@pytest.mark.parametrize(
    "case",
    [
        *(all_of_its_subjects, its_training_subjects_by_another_split, no_scans_for_a_file, no_network, a_taken_output),
        *(other_categories, half_a_fold, no_such_device, no_such_weights, no_such_crop),
    ],
    ids=lambda case: case.__name__,
)
def test_what_cannot_be_scored_is_said_in_one_line_and_nothing_is_written(
    case: Callable[[Path, Path, Path], Refusal],
    run: Path,
    exported: Path,
    scans: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments, said = case(run, exported, scans)
    monkeypatch.chdir(tmp_path)
    before = sorted(run.parent.rglob("*"))
    assert main(["--device", "cpu", *map(str, arguments)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert said in message
    assert message.count("\n") == 1
    assert sorted(run.parent.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("--max-subjects", "0"), ("--workers", "0"), ("--view-subjects", "-1"), ("--crop-size", "0")),
        ("--part", "best"),
    ],
)
def test_flags_out_of_range_end_it_at_once(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", flag, value])
    assert caught.value.code == 2
    assert flag in "".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("flags", "ending"),
    [
        ({}, ""),
        ({"weights": "best", "part": "validation", "dataset": "brats2020"}, "-validation-best"),
        ({"weights": "baseline", "flips": True}, "-flips-baseline"),
        ({"part": "train", "fold": 0, "folds": 3}, "-train-other-split"),
        ({"split": "seeded"}, "-other-split"),
        ({"max_subjects": 1, "crop_size": (16, 24, 16)}, "-1-subjects-crop16x24x16"),
        ({"box": "released"}, "-released-box"),
        ({"weighting": "gaussian", "flips": True, "hd95": False}, "-gaussian-flips-no-hd95"),
        ({"precision": "bfloat16"}, "-bfloat16"),
        ({"precision": "float32"}, ""),
    ],
)
def test_by_default_it_is_with_the_network_and_says_what_is_different(
    flags: dict[str, Any], ending: str, run: Path
) -> None:
    planned = plan(EvaluateArguments(run, **{"device": "cpu", **flags}))
    (network,) = planned.networks
    assert network.output == run / f"evaluation{ending}"
    assert planned.raw.released_box == (flags.get("box") == "released")
    assert ("hd95_mm" in planned.measures) == flags.get("hd95", True)


def test_by_default_it_is_beside_a_file_and_says_which_precision_is_computed_in(
    exported: Path, scans: Path, tmp_path: Path
) -> None:
    # The CPU has no TF32.
    save_checkpoint(tmp_path / "tf32.pt", {**read_checkpoint(exported), "precision": "tf32"})
    for path, name in (exported, "tiny-evaluation-train"), (tmp_path / "tf32.pt", "tf32-evaluation-train-float32"):
        arguments = EvaluateArguments(path, part="train", data_root=scans, device="cpu")
        assert plan(arguments).networks[0].output == path.with_name(name)


def test_a_run_that_is_not_finished_keeps_the_folder_of_its_own_evaluation(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("subsets.md"))
    (network,) = plan(EvaluateArguments(tmp_path / "run", device="cpu")).networks
    assert network.output == tmp_path / "run" / "evaluation-unfinished"


@pytest.fixture(scope="module")
def stages(run: Path) -> Path:
    """The run with one more stage, whose weights are others; those of its best validation are its last ones."""
    folder = run.parent / "stages"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("evaluation*", "weights*"))
    content = read_checkpoint(folder / "baseline.pt")
    content["averaged"] = {name: value * 1.1 for name, value in content["averaged"].items()}
    save_checkpoint(folder / "gss-round-1.pt", content)
    return folder


ALL_WEIGHTS = ["--weights", "all", "--device", "cpu", "--no-hd95", "--view-subjects", "0"]


def test_all_weights_are_scored_once_each_and_compared(
    stages: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(vars(report_door), "save_evaluation_figures", lambda *_: [])
    assert main([str(stages), *ALL_WEIGHTS]) == 0
    table = (stages / "weights-no-hd95.md").read_text()
    assert table in capsys.readouterr().out
    _, _, head, _, *rows = table.splitlines()
    assert head.startswith("| weights | WT, mean of 15 subsets | ")
    titles = [row.split(" | ")[0] for row in rows]
    assert titles == ["| last, best, baseline", "| gss-round-1"]
    for row, (name, weights) in zip(rows, (("", "last"), ("-gss-round-1", "gss-round-1")), strict=True):
        own = read_evaluation(stages / f"evaluation-no-hd95{name}")
        assert own.settings["weights"] == weights
        cells = row.strip("| ").split(" | ")[1:]
        means = [*own.scores.overall.tolist(), *own.scores.mean[-1].tolist()]
        assert [float(cell) for cell in cells] == pytest.approx([100 * mean for mean in means], abs=0.006)
    assert rows[0].split("|")[2:] != rows[1].split("|")[2:]
    assert not (stages / "evaluation-no-hd95-best").exists()

    # What is complete is not scored again, nor is a stage that is named.
    before = contents(stages)
    assert main([str(stages), *ALL_WEIGHTS]) == 0
    assert capsys.readouterr().out.count("Scored already") == 2
    assert main([str(stages), *ALL_WEIGHTS, "--weights", "gss-round-1"]) == 0
    assert capsys.readouterr().out.count("Scored already") == 1
    assert contents(stages) == before


def test_all_weights_can_go_elsewhere(stages: Path, tmp_path: Path) -> None:
    planned = plan(EvaluateArguments(stages, weights="all", part="validation", output=tmp_path, device="cpu"))
    assert [network.output for network in planned.networks] == [
        tmp_path / "evaluation-validation",
        tmp_path / "evaluation-validation-gss-round-1",
    ]
    assert planned.table == tmp_path / "weights-validation.md"


def test_errors_that_need_no_torch_do_not_wait_for_it() -> None:
    program = """
import os, sys
from gss_train.evaluate import main
from gss_train.report.__main__ import main as report
try:
    main(["run", "--part", "best"])
except SystemExit:
    os.environ["TORCHELASTIC_RUN_ID"] = "any"
    assert main(["run"]) == report(["run", "--output", "."]) == 2
    print({"torch", "monai", "SimpleITK", "nibabel", "matplotlib"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "scores.json"), 2, "No space left on device: 'scores.json'"),
        (ModuleNotFoundError("No module named 'monai'"), 2, "No module named 'monai'; pip install"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_ends_it_decides_over_the_exit_status(
    error: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_options: Any) -> None:
        raise error

    monkeypatch.setattr("gss_train.evaluate.plan", fail)
    assert main(["run"]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", [main, report])
def test_a_missing_package_is_said(
    command: Callable[[list[str]], int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert command(["run"]) == 2
    assert "tyro" in capsys.readouterr().err
