from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from gss_train.runs.checkpoints import CheckpointError, CheckpointStore, read_checkpoint, save_checkpoint


def state(step: int) -> dict[str, Any]:
    return {"weights": {"layer": torch.full((40,), float(step))}, "progress": {"step": step}}


def step_of(path: Path) -> int:
    return read_checkpoint(path)["progress"]["step"]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def names(store: CheckpointStore) -> list[str]:
    return sorted(entry.name for entry in store.folder.iterdir())


def damage(path: Path) -> None:
    altered = bytearray(path.read_bytes())
    altered[len(altered) // 2] ^= 1
    path.write_bytes(altered)


def newest(store: CheckpointStore) -> tuple[int | None, list[str]]:
    """Its step, and what was announced."""
    said: list[str] = []
    found = store.newest(said.append)
    return (None if found is None else found["progress"]["step"]), said


def test_without_a_file_there_is_none(store: CheckpointStore) -> None:
    assert newest(store) == (None, [])
    assert not store.has_any
    store.folder.mkdir()
    assert newest(store) == (None, [])


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_ones_stay(keep: int, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep)
    for step in (5, 10, 15, 20):
        path = store.save(step, state(step))
        assert step_of(path) == step
        assert newest(store) == (step, [])
        assert store.has_any
    assert names(store) == [f"step-000000{step:02d}.pt" for step in (5, 10, 15, 20)[-keep:]]


def test_none_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep: got 0"):
        CheckpointStore(tmp_path, keep=0)


def test_they_are_sorted_by_step_not_by_name_or_time(store: CheckpointStore) -> None:
    store.folder.mkdir()
    for step in (100_000_000, 99_999_999, 7):
        save_checkpoint(store.folder / f"step-{step:08d}.pt", state(step))
    assert newest(store) == (100_000_000, [])


def test_a_failed_save_removes_nothing(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (5, 10):
        store.save(step, state(step))
    before = names(store)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match=r"step-00000015\.pt.*No space left"):
            store.save(15, state(15))
    assert names(store) == before
    assert newest(store) == (10, [])


def test_nothing_is_removed_before_the_new_one_has_its_name(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 10):
        store.save(step, state(step))
    unlink, seen = Path.unlink, []

    def noted(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".pt":
            seen.append((path.name, newest(store)))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    store.save(15, state(15))
    assert seen == [("step-00000005.pt", (15, []))]


def test_what_a_killed_process_could_not_remove_goes_when_the_run_goes_on(store: CheckpointStore) -> None:
    store.folder.mkdir()
    for step in (5, 10, 15):
        save_checkpoint(store.folder / f"step-{step:08d}.pt", state(step))
    store.tidy(15)
    assert names(store) == ["step-00000010.pt", "step-00000015.pt"]


def test_a_damaged_one_is_announced_and_the_one_before_is_used(store: CheckpointStore) -> None:
    for step in (5, 10):
        store.save(step, state(step))
    damage(store.folder / "step-00000010.pt")
    step, said = newest(store)
    assert step == 5
    assert len(said) == 1
    assert str(store.folder / "step-00000010.pt") in said[0]
    assert "checksum" in said[0]


def test_a_file_of_another_kind_is_no_checkpoint_of_a_run(store: CheckpointStore) -> None:
    store.save(5, state(5))
    torch.save({"state_dict": {}}, store.folder / "step-00000010.pt")
    step, said = newest(store)
    assert step == 5
    assert "step-00000010.pt: its format is None" in said[0]


def test_a_run_that_went_on_before_a_damaged_one_is_ahead_of_it(store: CheckpointStore) -> None:
    for step in (5, 10):
        store.save(step, state(step))
    damage(store.folder / "step-00000010.pt")
    store.tidy(5)  # nothing newer is safe yet
    assert names(store) == ["step-00000005.pt", "step-00000010.pt"]
    store.save(7, state(7))
    assert names(store) == ["step-00000005.pt", "step-00000007.pt"]
    assert newest(store) == (7, [])


def test_none_that_can_be_read_is_an_error(store: CheckpointStore) -> None:
    for step in (5, 10):
        damage(store.save(step, state(step)))
    said: list[str] = []
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints can be read"):
        store.newest(said.append)
    assert [name in line for name, line in zip(["step-00000010", "step-00000005"], said, strict=True)] == [True, True]


def test_new_names_reach_the_disk(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the folder itself, of the checkpoint and of the best weights."""
    synced: list[list[str]] = []

    def noted(descriptor: int) -> None:
        target = os.fstat(descriptor)
        if stat.S_ISDIR(target.st_mode):
            folder = store.folder if os.path.samestat(target, store.folder.stat()) else store.folder.parent
            synced.append(sorted(entry.name for entry in folder.glob("[!.]*")))

    monkeypatch.setattr("os.fsync", noted)
    store.save(5, state(5), best=(4, state(4)))
    assert synced == [
        ["checkpoints"],
        ["best-00000004.pt"],
        ["best-00000004.pt", "step-00000005.pt"],
        ["best.pt", "step-00000005.pt"],
    ]


def test_the_best_is_none_that_a_run_goes_on_from(store: CheckpointStore) -> None:
    store.save(5, state(5))
    save_checkpoint(store.best, state(7))
    assert newest(store) == (5, [])
    for step in (10, 15, 20):
        store.save(step, state(step))
    assert step_of(store.best) == 7


def test_the_best_is_what_the_newest_checkpoint_calls_so(store: CheckpointStore) -> None:
    store.save(5, state(5), best=(4, state(4)))
    assert names(store) == ["best.pt", "step-00000005.pt"]
    store.save(10, state(10))
    assert step_of(store.best) == 4
    store.save(15, state(15), best=(15, state(15)))
    assert step_of(store.best) == 15


def only_best(path: Path, target: Path) -> None:
    """No checkpoint can be renamed."""
    if not target.name.startswith("best-"):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    path.rename(target)


def test_a_best_one_of_a_life_that_ended_before_its_checkpoint_is_forgotten(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next life may find another one, and its records name the one before until then."""
    store.save(5, state(5), best=(4, state(4)))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", only_best)
        with pytest.raises(OSError, match="not permitted"):
            store.save(10, state(10), best=(9, state(9)))
    assert "best-00000009.pt" in names(store)
    store.settle_best(4)
    assert names(store) == ["best.pt", "step-00000005.pt"]
    assert step_of(store.best) == 4


def test_a_best_one_that_was_killed_before_it_had_its_name_gets_it(store: CheckpointStore) -> None:
    store.save(5, state(5), best=(4, state(4)))
    save_checkpoint(store.folder / "best-00000009.pt", state(9))
    store.settle_best(9)
    assert names(store) == ["best.pt", "step-00000005.pt"]
    assert step_of(store.best) == 9
