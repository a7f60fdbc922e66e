from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread, imsave
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from gss_kernels import ROUTES
from gss_train.common.errors import UserError
from gss_train.data import DATASETS, MODALITIES
from gss_train.runs.records import EpochRecord, StepRecord, ValidationRecord, VoteRecord
from gss_train.training.tensorboard import ScalarWriter

DATASET = DATASETS["brats2018"]


def step_record(step: int, total: float | None = 1.5, norm: float | None = 0.25) -> StepRecord:
    return StepRecord(
        stage="baseline",
        epoch=1,
        step=step,
        steps=10,
        learning_rate=0.5,
        terms={"total": total, "fused": 0.75},
        gss_weight=0.125,
        gradient_norm=norm,
        skipped_steps=2,
        samples_per_second=32.0,
        peak_memory_mb=1024.0,
    )


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """By tag the values by step."""
    accumulator = read(folder)
    return {
        tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in accumulator.Tags()["scalars"]
    }


def test_steps_are_written_with_everything_but_what_is_none(tmp_path: Path) -> None:
    writer = ScalarWriter(tmp_path / "tensorboard", 0)
    writer.write_steps(step_record(10))
    writer.write_steps(step_record(20, total=None, norm=None))
    writer.close()
    assert scalars(tmp_path / "tensorboard") == {
        "loss/total": {10: 1.5},
        "loss/fused": {10: 0.75, 20: 0.75},
        "training/learning rate": {10: 0.5, 20: 0.5},
        "training/GSS weight": {10: 0.125, 20: 0.125},
        "training/gradient norm": {10: 0.25},
        "training/skipped steps": {10: 2, 20: 2},
        "speed/samples per second": {10: 32, 20: 32},
        "memory/peak in MB": {10: 1024, 20: 1024},
    }


def test_an_epoch_with_a_vote_has_its_agreement(tmp_path: Path) -> None:
    agreement = [0.5, 0.25, 0.125, 0.0625]
    writer = ScalarWriter(tmp_path, 0)
    writer.write_epoch(EpochRecord("baseline", 1, 1, 100, 0.1, {"total": 1.0}))
    vote = {"routes": [[0.25] * 4] * 4, "agreement": agreement}
    writer.write_epoch(EpochRecord("GSS round 1", 1, 2, 200, 0.1, {"total": 1.0}, vote))
    writer.close()
    assert scalars(tmp_path) == {
        f"agreement/{name}": {200: share} for name, share in zip(MODALITIES, agreement, strict=True)
    }


def test_a_validation_has_its_mean_and_regions_by_subset(tmp_path: Path) -> None:
    writer = ScalarWriter(tmp_path, 0)
    dice = {"T2": {"WT": 0.5, "ET": None}, "FLAIR+T1ce+T1+T2": {"WT": 0.75, "ET": 0.25}}
    writer.write_validation(ValidationRecord("baseline", 10, 100, 0.5, dice, True))
    writer.write_validation(ValidationRecord("baseline", 20, 200, None, {}, False))
    writer.close()
    assert scalars(tmp_path) == {
        "validation/mean Dice": {100: 0.5},
        "validation/WT/T2": {100: 0.5},
        "validation/WT/FLAIR+T1ce+T1+T2": {100: 0.75},
        "validation/ET/FLAIR+T1ce+T1+T2": {100: 0.25},
    }


def test_a_validation_has_what_the_vote_knows_without_what_nobody_has(tmp_path: Path) -> None:
    routes = {name: dict.fromkeys(ROUTES, 0.25 * number) for number, name in enumerate(DATASET.categories)}
    routes["ED"] = dict.fromkeys(ROUTES)
    dice = {name: dict.fromkeys(DATASET.categories, 0.125 * number) for number, name in enumerate(("target", "T1"))}
    dice["T2"] = dict.fromkeys(DATASET.categories)
    writer = ScalarWriter(tmp_path, 0)
    writer.write_validation(ValidationRecord("baseline", 10, 100, None, {}, False, VoteRecord(2, routes, dice)))
    writer.close()
    expected = {
        f"routes in true {category}/{route}": {100: share}
        for category, share in (("BG", 0), ("NCR+NET", 0.25), ("ET", 0.75))
        for route in ROUTES
    }
    for category in ("BG", "NCR+NET", "ED", "ET"):
        expected |= {f"vote Dice of {category}/target": {100: 0}, f"vote Dice of {category}/T1": {100: 0.125}}
    assert scalars(tmp_path) == expected


def test_a_figure_is_the_picture_of_its_step(tmp_path: Path) -> None:
    path = tmp_path / "epoch.png"
    imsave(path, np.random.default_rng(0).random((6, 8, 3)))
    writer = ScalarWriter(tmp_path / "tensorboard", 0)
    writer.write_figure(7, path)
    writer.close()
    accumulator = read(tmp_path / "tensorboard")
    (tag,) = accumulator.Tags()["images"]
    (event,) = accumulator.Images(tag)
    copy = tmp_path / "copy.png"
    copy.write_bytes(event.encoded_image_string)
    assert (tag, event.step) == ("epoch", 7)
    np.testing.assert_allclose(imread(copy)[..., :3], imread(path)[..., :3], atol=1 / 255)


def test_what_a_killed_run_wrote_after_its_checkpoint_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files are read in the order of the second, the process and the number that their names hold.
    seconds = iter(range(1000, 10**6))
    monkeypatch.setattr(event_file_writer.time, "time", lambda: float(next(seconds)))
    killed = ScalarWriter(tmp_path, 0)
    for step in (10, 20, 30, 40):
        killed.write_steps(step_record(step, total=1.0))
    killed.close()
    resumed = ScalarWriter(tmp_path, 20)
    resumed.write_steps(step_record(30, total=2.0))
    resumed.close()
    assert scalars(tmp_path)["loss/total"] == {10: 1.0, 20: 1.0, 30: 2.0}


def test_what_was_flushed_can_be_read_before_the_end(tmp_path: Path) -> None:
    writer = ScalarWriter(tmp_path, 0)
    writer.write_steps(step_record(10))
    writer.flush()
    assert scalars(tmp_path)["loss/total"] == {10: 1.5}
    writer.close()


def test_without_the_package_the_flag_and_the_remedy_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install tensorboard.*--no-tensorboard"):
        ScalarWriter(tmp_path / "tensorboard", 0)
    assert not (tmp_path / "tensorboard").exists()
