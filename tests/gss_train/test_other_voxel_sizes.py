"""A run with `--spacing`, its checkpoint and its export know the voxel size; answers come on the files' own voxels."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from gss_train.evaluate import EvaluateArguments, plan
from gss_train.evaluation.metrics import region_dice
from gss_train.main import main as train
from gss_train.predict import main as predict
from gss_train.runs import load_trained, read_stored
from tests.gss_train.data.raw_files import make_head, write_subject
from tests.gss_train.training.tiny import one_processor, small_figures

SIZE = (40, 36, 44)
TINY = [
    *("--dataset", "brats2020", "--preset", "quick", "--spacing", "2", "--device", "cpu", "--no-gss", "--epochs", "1"),
    *("--width", "4", "--crop-size", "16", "--steps-per-epoch", "2", "--batch-size", "1", "--validate-every", "0"),
    *("--figure-every", "0", "--no-tensorboard", "--final-evaluation", "dice"),
]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw scans of three subjects, of 1 mm."""
    folder = tmp_path_factory.mktemp("scans")
    for number in range(1, 4):
        write_subject(folder / f"BraTS20_Training_{number:03}", make_head(SIZE, seed=number), ".nii")
    return folder


@pytest.fixture(scope="module")
def run(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    with one_processor(), small_figures():
        folders = ["--data-root", str(scans), "--cache", str(folder / "cache"), "--output", str(folder / "run")]
        assert train([*TINY, *folders]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    path = run.parent / "exported.pt"
    assert predict(["--model", str(run), "--export", str(path)]) == 0
    return path


def test_run_checkpoint_and_export_know_the_voxel_size(run: Path, exported: Path) -> None:
    checkpoint = next((run / "checkpoints").glob("step-*.pt"))
    for path in (run, checkpoint, exported):
        assert read_stored(path).spacing == (2.0, 2.0, 2.0)
        assert load_trained(path, torch.device("cpu")).spacing == (2.0, 2.0, 2.0)


def test_a_run_of_before_there_were_other_voxel_sizes_had_its_own(run: Path, tmp_path: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    del config["data"]["spacing"]
    for name in ("dataset.json", "split.json", "checkpoints"):
        (tmp_path / name).symlink_to(run / name)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_stored(tmp_path).spacing is None


def predicted(model: Path, scans: Path, name: str, output: Path) -> np.ndarray:
    flags = ("flair", "t1ce", "t1", "t2")
    files = [part for flag in flags for part in (f"--{flag}", str(scans / name / f"{name}_{flag}.nii"))]
    assert predict(["--model", str(model), *files, "--output", str(output), "--device", "cpu"]) == 0
    return np.asarray(nib.load(output).dataobj)


def test_scores_are_those_of_the_label_map_on_the_files_own_voxels(run: Path, scans: Path, tmp_path: Path) -> None:
    (name,) = json.loads((run / "split.json").read_text())["test"]
    found = predicted(run, scans, name, tmp_path / "map.nii.gz")
    assert found.shape == SIZE
    truth = np.asarray(nib.load(scans / name / f"{name}_seg.nii").dataobj)
    values = [0, 1, 2, 4]
    prediction, label = (torch.from_numpy(np.searchsorted(values, volume)) for volume in (found, truth))
    expected = region_dice(prediction, label, "brats2020")
    rows = [line.split(",") for line in (run / "evaluation" / "subjects.csv").read_text().splitlines()]
    (row,) = (row for row in rows if row[:2] == [name, "FLAIR+T1ce+T1+T2"])
    assert rows[0][2:] == ["dice WT", "dice TC", "dice ET", "dice ET post-processed"]
    np.testing.assert_allclose([float(value) for value in row[2:]], expected.numpy(), atol=1e-6)
    assert 0 < expected[0] < 1


def test_an_export_is_scored_and_predicts_as_its_run(run: Path, exported: Path, scans: Path, tmp_path: Path) -> None:
    (name,) = json.loads((run / "split.json").read_text())["test"]
    first, second = (
        predicted(model, scans, name, tmp_path / f"{number}.nii") for number, model in enumerate((run, exported))
    )
    np.testing.assert_array_equal(first, second)
    for model in (run, exported):
        planned = plan(EvaluateArguments(model, data_root=scans, part="train", device="cpu"))
        assert planned.raw.spacing == (2.0, 2.0, 2.0)
        assert planned.networks[0].settings["spacing"] == [2.0, 2.0, 2.0]
    finer = plan(
        EvaluateArguments(exported, data_root=scans, part="train", max_subjects=1, spacing=(1.5,), device="cpu")
    )
    assert finer.raw.spacing == (1.5, 1.5, 1.5)
    assert finer.networks[0].output.name == "exported-evaluation-train-1-subjects-1.5x1.5x1.5mm"


def test_scans_on_other_grids_are_predicted_on_the_first_ones(
    run: Path, scans: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "BraTS20_Training_001"
    flair = nib.load(scans / name / f"{name}_flair.nii")
    affine = flair.affine @ np.diag([0.5, 1, 1, 1])
    finer = np.repeat(np.asarray(flair.dataobj), 2, axis=0)
    affine[:3, 3] -= affine[:3, 0] / 2
    nib.save(nib.Nifti1Image(finer, affine), tmp_path / "finer.nii")
    files = ["--flair", str(tmp_path / "finer.nii"), "--t2", str(scans / name / f"{name}_t2.nii")]
    arguments = ["--model", str(run), *files, "--output", str(tmp_path / "map.nii"), "--device", "cpu"]
    assert predict(arguments) == 0
    assert "placed by its affine" in capfd.readouterr().err
    found = nib.load(tmp_path / "map.nii")
    assert found.shape == (80, 36, 44)
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert json.loads((tmp_path / "map.json").read_text())["segmented_grid"]["resampled"]
