"""Checkpoints are written every so many minutes, while the training goes on."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch

from benchmarks.simulated_time import SimulatedTime
from gss_train.runs import CheckpointStore
from gss_train.runs.checkpoints import read_checkpoint
from gss_train.training import CheckpointWriter


class SlowStore(CheckpointStore):
    """Its disk writes nothing until it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, keep=2)
        self.go_on = threading.Event()

    def save(self, step: int, content: Mapping[str, Any], best: tuple[int, Mapping[str, Any]] | None = None) -> Path:
        assert self.go_on.wait(60)
        return super().save(step, content, best)


def state(step: int) -> dict[str, Any]:
    return {"weights": {"layer": torch.full((40,), float(step))}, "progress": {"step": step}}


@pytest.fixture
def time() -> SimulatedTime:
    return SimulatedTime()


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    return SlowStore(tmp_path / "checkpoints")


def test_one_is_due_after_so_many_minutes(store: SlowStore, time: SimulatedTime) -> None:
    writer = CheckpointWriter(store, 15, time.clock)
    store.go_on.set()
    due = []
    for _ in range(100):
        time.pass_by(60)
        if writer.is_due(epoch_ended=False):
            due.append(time.seconds / 60)
            writer.save(int(time.seconds), state(1))
            writer.wait()
    assert due == [15, 30, 45, 60, 75, 90]


def test_in_a_long_run_they_are_farther_apart(store: SlowStore, time: SimulatedTime) -> None:
    writer = CheckpointWriter(store, 15, time.clock)
    time.pass_by(29 * 60)
    assert not writer.is_due(epoch_ended=True, stretch=2)
    time.pass_by(60)
    assert writer.is_due(epoch_ended=False, stretch=2)


def test_without_minutes_one_is_due_after_each_epoch(store: SlowStore, time: SimulatedTime) -> None:
    writer = CheckpointWriter(store, 0, time.clock)
    assert writer.is_due(epoch_ended=True)
    time.pass_by(3600)
    assert not writer.is_due(epoch_ended=False)


def test_the_training_goes_on_while_the_disk_is_slow_and_has_no_second_one_under_way(
    store: SlowStore, time: SimulatedTime
) -> None:
    writer = CheckpointWriter(store, 15, time.clock)
    writer.save(1, state(1))
    time.pass_by(3600)
    assert not writer.is_due(epoch_ended=True)
    store.go_on.set()
    writer.wait()
    assert writer.is_due(epoch_ended=True)
    assert read_checkpoint(store.folder / "step-00000001.pt")["progress"]["step"] == 1


def test_what_is_written_is_what_was_there_at_the_time(store: SlowStore, time: SimulatedTime, tmp_path: Path) -> None:
    stage = tmp_path / "baseline.pt"
    writer = CheckpointWriter(store, 15, time.clock)
    content = state(1)
    content["nested"] = {"moments": [torch.zeros(3)], "betas": (0.9, 0.999)}
    writer.keep_best(1, content)
    writer.keep(stage, content)
    writer.save(1, content)
    content["weights"]["layer"].fill_(-1)
    content["nested"]["moments"][0].fill_(-1)
    store.go_on.set()
    writer.wait()
    for path in (store.best, stage, store.folder / "step-00000001.pt"):
        found = read_checkpoint(path)
        assert torch.equal(found["weights"]["layer"], torch.ones(40))
        assert torch.equal(found["nested"]["moments"][0], torch.zeros(3))
        assert found["nested"]["betas"] == (0.9, 0.999)


def test_the_best_is_written_with_the_next_one_and_the_last_of_them_alone(
    store: SlowStore, time: SimulatedTime
) -> None:
    writer = CheckpointWriter(store, 15, time.clock)
    store.go_on.set()
    for step in (1, 2):
        writer.keep_best(step, state(step))
    assert not store.folder.exists()
    writer.save(3, state(3))
    writer.wait()
    assert read_checkpoint(store.best)["progress"]["step"] == 2
    writer.save(4, state(4))
    writer.wait()
    assert {path.name for path in store.folder.iterdir()} == {"best.pt", "step-00000003.pt", "step-00000004.pt"}


def test_without_minutes_a_slow_disk_is_waited_for(store: SlowStore, time: SimulatedTime) -> None:
    writer = CheckpointWriter(store, 0, time.clock)
    writer.save(1, state(1))
    threading.Timer(0.05, store.go_on.set).start()
    assert writer.is_due(epoch_ended=True)
    assert (store.folder / "step-00000001.pt").exists()


@pytest.mark.parametrize("call", ["is_due", "save", "wait"])
def test_an_error_of_the_disk_ends_the_training(
    call: str, store: SlowStore, time: SimulatedTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = CheckpointWriter(store, 15, time.clock)
    store.go_on.set()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", fail)
    writer.save(1, state(1))
    calls = {"is_due": lambda: writer.is_due(epoch_ended=True), "save": lambda: writer.save(2, state(2))}
    with pytest.raises(OSError, match=r"No space left"):  # noqa: PT012  (it comes when it comes)
        for _ in range(1000):
            calls.get(call, writer.wait)()
            sleep(0.01)
