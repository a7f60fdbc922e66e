"""What days of training leave, by the simulated run: bytes, time that steps wait, and a log that people can follow."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.long_run import Account, Costs, simulate
from benchmarks.simulated_time import BEGAN

MINUTE, HOUR = 60, 3600
SHORT = ["--preset", "paper", "--network", "uhved", "--width", "4", "--no-tensorboard", "--baseline-epochs", "3"]


@pytest.fixture(scope="module")
def mmformer(tmp_path_factory: pytest.TempPathFactory) -> Account:
    """The published training, 1000 + 5 x 1000 epochs, with steps that stand for fourteen of a second each."""
    arguments = ["--preset", "paper", "--network", "mmformer", "--steps-per-epoch", "2", "--no-tensorboard"]
    return simulate(arguments, Costs(step=14), tmp_path_factory.mktemp("runs") / "run")


def test_a_run_of_days_writes_no_more_than_a_disk_has(mmformer: Account) -> None:
    assert mmformer.epochs == 6000
    assert mmformer.seconds > 46 * HOUR
    assert sum(mmformer.bytes.values()) < 120e9


def test_its_steps_wait_for_checkpoints_and_figures_for_less_than_a_fiftieth_of_the_time(mmformer: Account) -> None:
    assert (mmformer.spent["checkpoint"] + mmformer.spent["figure"]) / mmformer.seconds < 0.02


def test_it_can_go_on_from_about_fifteen_minutes_ago(mmformer: Account) -> None:
    expected = mmformer.seconds / (15 * MINUTE)
    assert 0.9 * expected < mmformer.counts["checkpoints"] < 1.1 * expected
    assert mmformer.counts["weights of stages"] == 6


def test_on_a_slower_device_it_writes_hardly_more(mmformer: Account, tmp_path: Path) -> None:
    arguments = [*SHORT, "--no-gss", "--epochs", "100", "--steps-per-epoch", "20"]
    slow = [simulate(arguments, Costs(step=step), tmp_path / str(step)) for step in (100, 300)]
    assert slow[0].seconds > 48 * HOUR
    assert slow[1].counts["checkpoints"] < 1.1 * slow[0].counts["checkpoints"]


def lines(folder: Path) -> list[tuple[datetime, str]]:
    """Time and text of each line of a log."""
    texts = (folder / "train.log").read_text().splitlines()
    return [(datetime.fromisoformat(text[:19]), text[20:]) for text in texts]


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five epochs of 700 seconds."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = [*SHORT, "--rounds", "1", "--epochs", "2", "--steps-per-epoch", "100", "--validate-every", "2"]
    simulate(arguments, Costs(step=7, validation=0.01), folder)
    return folder


def test_the_first_line_comes_within_a_minute(hours: Path) -> None:
    assert lines(hours)[0][0] - BEGAN <= timedelta(minutes=1)


def test_there_is_a_line_for_each_epoch_with_all_that_one_wants_to_know(hours: Path) -> None:
    epochs = [text for _, text in lines(hours) if text.startswith("epoch ")]
    assert [text.split(":")[0] for text in epochs] == [
        "epoch 1 of 5 (baseline, 1 of 3)",
        "epoch 2 of 5 (baseline, 2 of 3)",
        "epoch 3 of 5 (baseline, 3 of 3)",
        "epoch 4 of 5 (GSS round 1, 1 of 2)",
        "epoch 5 of 5 (GSS round 1, 2 of 2)",
    ]
    number = r"-?\d[\d.e+-]*"
    assert re.fullmatch(
        rf"epoch 2 .*: loss {number} \(fused {number}, .*\), learning rate {number}, 700.0 s, {number} samples/s, "
        rf"{number} GB, validation after epoch 2 Dice WT {number} TC {number} ET {number}, best mean {number} after "
        r"epoch 2, about 35 min left, until Fri 01 Jan 00:58",
        epochs[1],
    )
    assert "validation after" not in epochs[2]
    assert "best mean" in epochs[2]


def test_the_time_that_is_said_to_be_left_is_left(hours: Path) -> None:
    end = lines(hours)[-1][0]
    said = [text for _, text in lines(hours) if "left, until" in text]
    assert said[0].startswith("after 50 steps: 7 s for each, 450 are left: about 52 min left, until")
    assert len(said) > 5
    for text in said:
        until = re.search(r"until Fri (01 Jan \d\d:\d\d)", text)
        assert until is not None
        assert abs(datetime.strptime(f"2027 {until[1]}", "%Y %d %b %H:%M") - end) <= timedelta(minutes=2)


def test_a_long_validation_at_the_end_is_still_to_come_when_the_last_epoch_is_done(tmp_path: Path) -> None:
    simulate([*SHORT, "--rounds", "1", "--epochs", "2", "--steps-per-epoch", "100"], Costs(step=7), tmp_path / "run")
    *_, last = [text for _, text in lines(tmp_path / "run") if text.startswith("epoch ")]
    assert "about 6 min left" in last  # 50 subjects x 15 subsets of half a second


def test_all_validation_subjects_have_a_line_at_the_end_of_a_stage(hours: Path) -> None:
    ends = [text for _, text in lines(hours) if text.startswith("end of ")]
    assert [text.partition(":")[0] for text in ends] == ["end of baseline"] * 2 + ["end of GSS round 1"] * 2
    for said, found in (ends[:2], ends[2:]):
        assert "validating on 50 subjects, with all subsets" in said
        assert found.endswith("mean of 15 subsets")


def test_where_epochs_are_short_there_is_a_line_in_a_minute(tmp_path: Path) -> None:
    arguments = [*SHORT, "--no-gss", "--epochs", "500", "--steps-per-epoch", "10", "--figure-every", "0"]
    simulate(arguments, Costs(step=0.1, validation=0.001), tmp_path / "run")
    times = [time for time, text in lines(tmp_path / "run") if text.startswith("epoch ")]
    assert len(times) > 5
    assert {later - earlier >= timedelta(minutes=1) for earlier, later in pairwise(times[:-1])} == {True}


def test_within_long_epochs_there_is_a_line_in_ten_minutes(tmp_path: Path) -> None:
    arguments = [*SHORT, "--no-gss", "--epochs", "1", "--steps-per-epoch", "1000"]
    simulate([*arguments, "--fusion-warmup-epochs", "0"], Costs(step=7, validation=0.01), tmp_path / "run")
    times = [time for time, _ in lines(tmp_path / "run")]
    assert max(later - earlier for earlier, later in pairwise([BEGAN, *times])) <= timedelta(minutes=11)
    assert len(times) < 20
