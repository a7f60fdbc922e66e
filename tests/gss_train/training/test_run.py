from __future__ import annotations

import csv
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gss_kernels import GSSSettings
from gss_train import report
from gss_train.common.errors import UserError
from gss_train.common.interruption import Interrupted
from gss_train.data import MODALITIES, MODALITY_SUBSETS, PreparedSubject, draw_subsets, load_prepared
from gss_train.evaluate import main as evaluate
from gss_train.evaluation import job
from gss_train.evaluation.folder import read_evaluation, read_segmented
from gss_train.evaluation.metrics import MEASURES, region_dice
from gss_train.inference.segmentation import segment_subsets
from gss_train.inference.windows import SlidingWindow
from gss_train.main import main
from gss_train.models import build_network, load_public_checkpoint
from gss_train.runs.checkpoints import read_checkpoint
from gss_train.runs.records import ValidationRecord
from gss_train.runs.stored import UNNAMED_SUBJECTS, read_stored
from gss_train.runs.weights import load_trained
from gss_train.training import GuardedUpdate, StepResult, loop, recorder, sample_generator, training_step
from gss_train.training.validation import validate
from tests.gss_train.training.tiny import SETTINGS, metrics, run, write_scans

PUBLIC_SHAPES = Path(__file__).parents[2] / "data" / "rfnet_c4_keys.json"
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
SCORED = ["--no-gss", "--network", "rfnet", "--width", "4", "--steps-per-epoch", "4", "--final-evaluation", "all"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("data") / "scans", 7)


@pytest.fixture(scope="module")
def finished(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run at width 4."""
    output = tmp_path_factory.mktemp("runs") / "run"
    assert run(scans, output, *SCORED) == 0
    return output


@pytest.fixture(scope="module")
def held_out(scans: Path, finished: Path) -> list[PreparedSubject]:
    names = json.loads((finished / "split.json").read_text())["test"]
    (folder,) = scans.with_name("cache").glob("prepared/*")
    prepared = {subject.name: subject for subject in load_prepared(folder)}
    return [prepared[name] for name in names]


def dice(prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    """WT, TC and ET of one volume, from sets of voxels."""
    scores = []
    for categories in REGIONS.values():
        predicted, true = (
            {tuple(voxel) for voxel in np.argwhere(np.isin(labels, categories)).tolist()}
            for labels in (prediction, truth)
        )
        voxels = len(predicted) + len(true)
        scores.append(2 * len(predicted & true) / voxels if voxels else 1.0)
    return scores


@pytest.fixture(scope="module")
def expected(finished: Path, held_out: list[PreparedSubject]) -> np.ndarray:
    """[subjects, 15, 3], from the run's checkpoint."""
    network = load_trained(finished / "baseline.pt", torch.device("cpu")).network
    scores = []
    for subject in held_out:
        voxels = subject.open()
        image = torch.from_numpy(np.moveaxis(voxels["image"], -1, 0).astype(np.float32))
        predictions = segment_subsets(network, image, SlidingWindow((16, 16, 16)), MODALITY_SUBSETS).numpy()
        scores.append([dice(prediction, voxels["label"]) for prediction in predictions])
    return np.array(scores)


def test_reported_dice_is_that_of_the_saved_weights(
    finished: Path, held_out: list[PreparedSubject], expected: np.ndarray
) -> None:
    assert expected.shape == (2, 15, 3)
    assert 0 < expected.mean() < 1
    with (finished / "subsets.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:5] == ["subject", "modalities", *(f"{region} (0 to 1)" for region in REGIONS)]
    reported = {(name, subset): [float(cell) for cell in cells[:3]] for name, subset, *cells in rows}
    names = [subject.name for subject in held_out]
    for name, values in zip([*names, "mean"], [*expected, expected.mean(axis=0)], strict=True):
        for flags, row in zip(MODALITY_SUBSETS, values, strict=True):
            subset = "+".join(modality for modality, flag in zip(MODALITIES, flags, strict=True) if flag)
            assert reported.pop((name, subset)) == pytest.approx(row, abs=2e-6)
        assert reported.pop((name, "mean")) == pytest.approx(values.mean(axis=0), abs=2e-6)
    assert reported == {}


def test_the_metrics_end_with_the_test(finished: Path, expected: np.ndarray) -> None:
    *_, last = metrics(finished)
    assert last["kind"] == "test"
    all_modalities = MODALITY_SUBSETS.index((True,) * 4)
    for key, values in (
        ("dice_all_modalities", expected[:, all_modalities].mean(axis=0)),
        ("dice_mean_over_subsets", expected.mean(axis=(0, 1))),
    ):
        assert tuple(last[key])[:3] == tuple(REGIONS)
        assert list(last[key].values())[:3] == pytest.approx(values.tolist(), abs=1e-6)


def test_the_evaluation_of_a_run_has_its_scores_and_subjects_to_look_at(
    finished: Path, held_out: list[PreparedSubject], expected: np.ndarray
) -> None:
    evaluation = read_evaluation(finished / "evaluation")
    names = tuple(subject.name for subject in held_out)
    assert (evaluation.name, evaluation.dataset.name, evaluation.scores.subjects) == ("run", "brats2020", names)
    # Nothing that a run would write otherwise the next time.
    assert evaluation.settings == {
        "network": "rfnet",
        "weights": "last",
        "part": "test",
        "split": "seeded, --split-seed 0",
        "crop_size": [16, 16, 16],
        "spacing": None,
        "weighting": "uniform",
        "flips": False,
        "precision": "float32",
    }
    assert tuple(evaluation.scores.measures) == tuple(MEASURES)
    np.testing.assert_allclose(evaluation.scores.dice[..., :3], expected, atol=1e-6)
    segmented = read_segmented(finished / "evaluation")
    assert [subject.name for subject in segmented] == sorted(names)
    for subject in segmented:
        found = region_dice(torch.from_numpy(subject.predictions[-1]), torch.from_numpy(subject.truth), "brats2020")
        torch.testing.assert_close(found, evaluation.scores.dice[names.index(subject.name), -1], atol=1e-6, rtol=0)
        # The head is not all of the volume.
        assert (subject.image == 0).any(axis=(1, 2, 3)).all()


def test_a_checkpoint_says_which_subjects_it_has_seen(finished: Path) -> None:
    content = read_checkpoint(finished / "baseline.pt")
    split = json.loads((finished / "split.json").read_text())
    assert content["progress"]["training_subjects"] == split["train"]
    assert (content["position"]["epoch"], content["position"]["step"]) == (1, 4)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the authors of RFNet save it, with random weights."""
    shapes = json.loads(PUBLIC_SHAPES.read_text())
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key in sorted(shapes):
        noise = torch.randn(shapes[key], generator=generator)
        state[f"module.{key}"] = noise * math.sqrt(2 / noise[0].numel()) if noise.dim() > 1 else 0.05 * noise
    path = tmp_path_factory.mktemp("public") / "model_last.pth"
    optimiser = {"state": {}, "param_groups": [{"lr": np.float64(2e-4)}]}
    torch.save({"epoch": 299, "state_dict": state, "optim_dict": optimiser}, path)
    return path


def test_gss_starts_from_a_public_checkpoint(
    scans: Path, public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    # So small a step leaves the weights where they started.
    arguments = ["--network", "rfnet", "--width", "16", "--steps-per-epoch", "1", "--learning-rate", "1e-9"]
    assert run(scans, output, *arguments, "--batch-size", "1", "--init-from", str(public)) == 0
    expected = build_network("rfnet", 4, crop_size=(16, 16, 16))
    report = load_public_checkpoint(expected, torch.load(public, weights_only=False))
    assert f"{len(report.used)} public keys, 0 not used" in capsys.readouterr().out
    trained = read_checkpoint(output / "gss-round-1.pt")["weights"]
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(trained[name], weight, atol=1e-8, rtol=0)
    assert [line["stage"] for line in metrics(output, "epoch")] == ["GSS round 1"]
    # What it was trained on before nobody knows.
    assert UNNAMED_SUBJECTS in read_stored(output).training_subjects


def test_a_run_trains_by_its_protocol(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimiser, draws and vote are those of the settings: of U-HVED's own training, and a vote of the user's."""
    taken: list[tuple[Any, GuardedUpdate]] = []

    def step(
        network: Any, passes: Any, objective: Any, update: GuardedUpdate, *rest: Any, **options: Any
    ) -> StepResult:
        taken.append((passes, update))
        return training_step(network, passes, objective, update, *rest, **options)

    votes: list[GSSSettings] = []

    def validated(*arguments: Any, vote_settings: GSSSettings, **options: Any) -> ValidationRecord:
        votes.append(vote_settings)
        return validate(*arguments, vote_settings=vote_settings, **options)

    monkeypatch.setattr(loop, "training_step", step)
    monkeypatch.setattr(recorder, "validate", validated)
    flags = ["--validate-every", "1", "--semantics", "released", "--temperature", "3", "--weight-decay", "0.25"]
    assert run(scans, tmp_path / "run", *flags, "--augment-scaling", "0") == 0
    assert {(vote.semantics, vote.temperature) for vote in votes} == {("released", 3)}
    groups = taken[0][1].optimiser.param_groups
    assert [(group["weight_decay"], group["amsgrad"]) for group in groups] == [(0.25, False), (0, False)]
    assert {parameter.dim() >= 2 for parameter in groups[0]["params"]} == {True}
    assert {parameter.dim() for parameter in groups[1]["params"]} == {1}
    for number, ((own,), _) in enumerate(taken):
        generators = [sample_generator(0, number, sample) for sample in range(2)]
        expected = [draw_subsets(own.available[:1], generator, "count") for generator in generators]
        assert torch.equal(own.fused_modalities, torch.cat(expected))


def test_a_public_checkpoint_of_another_width_is_refused(
    scans: Path, public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--network", "rfnet", "--width", "4", "--init-from", str(public)]
    assert run(scans, tmp_path / "run", *arguments) == 2
    assert str(public) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_final_evaluation_of_dice_has_no_other_measure(scans: Path, finished: Path, tmp_path: Path) -> None:
    """The scores are those of the whole evaluation."""
    output = tmp_path / "run"
    assert run(scans, output, *SCORED, "--final-evaluation", "dice") == 0
    assert list(read_evaluation(output / "evaluation").scores.measures) == ["dice"]
    for name in ("subsets.md", "subsets.csv"):
        assert (output / name).read_text() == (finished / name).read_text()


def test_all_weights_are_scored_at_the_end_as_the_command_does(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    assert run(scans, output, "--final-evaluation", "all", "--final-weights", "all") == 0
    table = (output / "weights.md").read_text()
    assert [row.split(" | ")[0] for row in table.splitlines()[4:]] == ["| last, gss-round-1", "| baseline"]
    assert read_evaluation(output / "evaluation-baseline").settings["weights"] == "baseline"
    assert list(output.glob(".*")) == []
    capsys.readouterr()
    monkeypatch.setitem(vars(report), "save_evaluation_figures", lambda folder, *_: folder.mkdir())
    assert evaluate([str(output), "--weights", "all", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("Scored already") == 2
    assert (output / "weights.md").read_text() == table


def test_a_run_killed_while_it_is_scored_goes_on_with_that(
    scans: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    save = job._UnfinishedFolder.save

    def fail_after_one(folder: job._UnfinishedFolder, *scores: Any) -> None:
        save(folder, *scores)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(job._UnfinishedFolder, "save", fail_after_one)
        assert run(scans, output, *SCORED) == 2
    capsys.readouterr()
    assert run(scans, output, *SCORED) == 0
    assert "1 of 2 subjects are scored already" in capsys.readouterr().out
    for name in ("subsets.csv", "subsets.md", "evaluation/scores.json", "evaluation/table.md"):
        assert (output / name).read_bytes() == (finished / name).read_bytes()
    assert {path.name for path in output.iterdir()} == {path.name for path in finished.iterdir()}


def test_without_a_final_evaluation_the_run_is_finished_and_says_how_to_score_it(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    assert run(scans, output) == 0
    text = (output / "subsets.md").read_text()
    assert f"python -m gss_train.evaluate {output}" in text
    assert text in capsys.readouterr().out
    assert not {"evaluation", "subsets.csv", "summary.png"} & {path.name for path in output.iterdir()}
    assert [line["kind"] for line in metrics(output)][-1] != "test"
    assert run(scans, output, "--final-evaluation", "dice") == 0
    said = capsys.readouterr().out
    assert "finished already" in said
    assert text in said


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(signal.SIGINT), 130, "stopped by SIGINT"),
        (Interrupted(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (UserError("--output: is taken"), 2, "--output: is taken"),
        (OSError(28, "No space left on device", "checkpoint.pt"), 2, "No space left on device: 'checkpoint.pt'"),
        (ModuleNotFoundError("No module named 'SimpleITK'"), 2, "No module named 'SimpleITK'; pip install"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_the_user_can_mend_ends_in_one_message(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("gss_train.training.run.run_training", fail)
    assert main(["--dataset", "brats2018"]) == status
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert "Done" not in printed.out


def test_faults_of_the_software_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("gss_train.training.run.run_training", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        main(["--dataset", "brats2018"])


def test_without_the_command_line_package_the_advice_is_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    monkeypatch.delitem(sys.modules, "gss_train.config.command_line", raising=False)
    assert main(["--dataset", "brats2018"]) == 2
    message = capsys.readouterr().err
    assert "tyro" in message
    assert "pip install" in message
    assert "[train,demo]" in message


def test_without_the_template_a_phantom_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nilearn", None)
    folders = ["--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "run")]
    assert main([*SETTINGS, *folders]) == 2
    message = capsys.readouterr().err
    assert "nilearn" in message
    assert "pip install" in message
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_made_is_named(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(scans, tmp_path / "file" / "run") == 2
    assert str(tmp_path / "file" / "run") in capsys.readouterr().err


def test_a_signal_ends_the_validation_at_the_end_of_a_stage_which_is_then_done_again(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take hours: the stage is saved before, and no later stage begins without it."""
    output, flags = tmp_path / "run", ["--stage-validation", "--validate-every", "1"]
    validated: list[int] = []

    def interrupted(*arguments: Any, **options: Any) -> ValidationRecord:
        if len(options["subsets"]) == 15:
            validated.append(options["epoch"])
            if len(validated) == 1:
                signal.raise_signal(signal.SIGTERM)
        return validate(*arguments, **options)

    monkeypatch.setattr(recorder, "validate", interrupted)
    assert run(scans, output, *flags) == 128 + signal.SIGTERM
    assert read_checkpoint(output / "baseline.pt")["position"]["stage"] == 1
    assert metrics(output, "stage_validation") == []
    assert run(scans, output, *flags) == 0
    assert validated == [1, 1, 2]
    kinds = [(line["kind"], line["stage"]) for line in metrics(output) if line["kind"] in {"epoch", "stage_validation"}]
    assert kinds == [
        ("epoch", "baseline"),
        ("stage_validation", "baseline"),
        ("epoch", "GSS round 1"),
        ("stage_validation", "GSS round 1"),
    ]
    assert {len(line["dice"]) for line in metrics(output, "stage_validation")} == {15}
