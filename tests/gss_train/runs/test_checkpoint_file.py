from __future__ import annotations

import errno
import os
import pickle
import random
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gss_train.runs.checkpoints import CheckpointError, read_checkpoint, read_own_checkpoint, save_checkpoint


class Attack:
    """Creates a file when a careless reader unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def content(value: float = 1.0, weights: dict[str, torch.Tensor] | None = None) -> dict[str, Any]:
    """Of all kinds that a run's state has."""
    return {
        "weights": {"layer": torch.full((40,), value)} if weights is None else weights,
        "averaged": None,
        "optimiser": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 2e-4, "params": [0]}]},
        "scaler": None,
        "progress": {"epoch": 3, "best": float("nan"), "training_subjects": ["a", "b"]},
    }


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, content())
    assert repr(read_own_checkpoint(path)) == repr({"format": "gss-checkpoint-2", **content()})
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_published_checkpoint_with_its_numpy_learning_rate_is_read(tmp_path: Path, zip_format: bool) -> None:
    published = {"epoch": 299, "state_dict": {}, "optim_dict": {"param_groups": [{"lr": np.float64(2e-4)}]}}
    path = tmp_path / "model_last.pth"
    torch.save(published, path, _use_new_zipfile_serialization=zip_format)
    assert read_checkpoint(path)["optim_dict"]["param_groups"][0]["lr"] == 2e-4
    with pytest.raises(CheckpointError, match=r"model_last\.pth: its format is None"):
        read_own_checkpoint(path)


@pytest.fixture
def no_checksums() -> Any:
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


def test_a_published_checkpoint_without_checksums_is_read_and_an_own_one_has_them(
    no_checksums: None, tmp_path: Path
) -> None:
    torch.save({"state_dict": {"weight": torch.arange(4)}}, tmp_path / "public.pth")
    with zipfile.ZipFile(tmp_path / "public.pth") as archive:
        assert archive.testzip() is not None
    assert torch.equal(read_checkpoint(tmp_path / "public.pth")["state_dict"]["weight"], torch.arange(4))
    save_checkpoint(tmp_path / "own.pt", content())
    with zipfile.ZipFile(tmp_path / "own.pt") as archive:
        assert archive.testzip() is None
    assert not torch.serialization.get_crc32_options()


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": Attack(tmp_path / "executed")}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "write", [partial(pickle.dump, protocol=2), partial(torch.save, _use_new_zipfile_serialization=False)]
)
def test_nothing_in_a_file_of_an_old_format_is_executed(write: Any, tmp_path: Path) -> None:
    with (tmp_path / "bad.pth").open("wb") as file:
        write({"state_dict": Attack(tmp_path / "executed")}, file)
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_a_gpu_is_read_onto_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("torch.serialization.location_tag", lambda _storage: "cuda:0")
        save_checkpoint(tmp_path / "checkpoint.pt", content(2.0))
    weight = read_checkpoint(tmp_path / "checkpoint.pt")["weights"]["layer"]
    assert weight.device == torch.device("cpu")
    assert torch.equal(weight, torch.full((40,), 2.0))


def test_a_flipped_bit_in_a_tensor_is_found_where_pytorch_finds_none(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, content(weights={"layer": torch.arange(1000.0)}))
    altered = bytearray(path.read_bytes())
    altered[altered.index(torch.arange(500.0, 510.0).numpy().tobytes())] ^= 1
    path.write_bytes(altered)
    assert torch.load(path, weights_only=True)["weights"]["layer"][500] != 500
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be read.*data/0 does not fit its checksum"):
        read_checkpoint(path)


def test_a_tensor_that_seems_to_be_a_folder_is_found(tmp_path: Path) -> None:
    """PyTorch's reader takes whatever the memory held for its numbers."""
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, content())
    altered = bytearray(path.read_bytes())
    # In the list at the file's end, the attributes stand eight bytes before the name.
    altered[altered.rindex(b"archive/data/0") - 8] ^= 0x10
    path.write_bytes(altered)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be read.*data/0"):
        read_checkpoint(path)


def test_a_tensor_that_seems_to_be_compressed_is_found(tmp_path: Path) -> None:
    """Its numbers are no LZMA data, of which Python's reader complains in a way of its own."""
    path = tmp_path / "checkpoint.pt"
    numbers = torch.tensor([9, 4, 5, 0, *[255] * 60], dtype=torch.uint8)
    save_checkpoint(path, content(weights={"layer": numbers}))
    altered = bytearray(path.read_bytes())
    name = b"archive/data/0"
    # Before the name stand 30 bytes where the part begins, and 46 in the list at the file's end.
    altered[altered.index(name) - 30 + 8] = altered[altered.rindex(name) - 46 + 10] = zipfile.ZIP_LZMA
    path.write_bytes(altered)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be read.*data/0"):
        read_checkpoint(path)


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, content())
    whole, expected = path.read_bytes(), repr(read_checkpoint(path))
    draws = random.Random(0)
    found = 0
    for place in draws.sample(range(len(whole)), 400):
        altered = bytearray(whole)
        altered[place] ^= 1 << draws.randrange(8)
        path.write_bytes(altered)
        try:
            assert repr(read_checkpoint(path)) == expected
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017  (or nothing is raised)
            found += 1
    assert found > 100


def test_a_cut_file_is_found_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, content())
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be read"):
            read_checkpoint(path)


def test_faults_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing\.pt: no such file"):
        read_checkpoint(tmp_path / "missing.pt")
    (tmp_path / "run").mkdir()
    with pytest.raises(CheckpointError, match=r"run: cannot be read"):
        read_checkpoint(tmp_path / "run")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list\.pt: holds a list"):
        read_checkpoint(tmp_path / "list.pt")


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_written(_content: object, file: Any) -> None:
    file.write(b"PK\x03\x04 half of it")
    no_space()


@pytest.mark.parametrize(
    ("target", "failing"),
    [("torch.save", half_written), ("os.fsync", no_space), ("pathlib.Path.replace", no_space)],
)
def test_a_failure_leaves_the_old_checkpoint_alone(
    target: str, failing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, content(1.0))
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(target, failing)
        with pytest.raises(OSError, match=r"checkpoint\.pt.*No space left"):
            save_checkpoint(path, content(2.0))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]
    save_checkpoint(path, content(3.0))
    assert read_checkpoint(path)["weights"]["layer"][0] == 3


def test_an_interruption_while_saving_leaves_the_old_checkpoint_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, content(1.0))

    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, content(2.0))
    assert read_checkpoint(path)["weights"]["layer"][0] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_everything_is_on_the_disk_before_the_name_changes_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        events.append("folder" if os.path.sameopenfile(descriptor, folder) else "file")
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    folder = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr("os.fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    save_checkpoint(tmp_path / "checkpoint.pt", content())
    os.close(folder)
    assert events == ["file", "rename", "folder"]


class FullDisk:
    """A file on a disk that has room for a little."""

    def write(self, data: bytes) -> int:
        if len(data) > 1000:
            no_space()
        return len(data)


def test_what_cannot_be_saved_is_not_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_content: object, _file: object) -> None:
        raise RuntimeError("a tensor without storage")

    monkeypatch.setattr("torch.save", refuse)
    with pytest.raises(RuntimeError, match="a tensor without storage"):
        save_checkpoint(tmp_path / "checkpoint.pt", content())
    assert list(tmp_path.iterdir()) == []


def test_pytorch_does_not_hide_that_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save
    monkeypatch.setattr("torch.save", lambda saved, _file: save(saved, FullDisk()))
    with pytest.raises(OSError, match=r"checkpoint\.pt.*No space left"):
        save_checkpoint(tmp_path / "checkpoint.pt", content(weights={"layer": torch.zeros(10000)}))
    assert list(tmp_path.iterdir()) == []
