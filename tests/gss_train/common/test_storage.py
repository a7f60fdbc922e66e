"""Files are complete or not there: killed processes, full disks, folders that cannot be written."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gss_train.common import storage
from gss_train.common.storage import final_name, open_replacing, remove_stale_partials
from gss_train.data import load_prepared
from tests.gss_train.common.killed import contents, kill_everywhere
from tests.gss_train.common.preparing import prepare
from tests.gss_train.data.raw_files import make_raw, write_subject


def interrupted(*_args: object, **_keywords: object) -> None:
    raise KeyboardInterrupt


def disk_full(*_args: object, **_keywords: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_raw(folder: Path, number: int) -> None:
    write_subject(folder / f"BraTS20_Training_{number:03}", make_raw(seed=number), ".nii")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The folder of a raw subject."""
    write_raw(tmp_path / "raw", 1)
    return tmp_path / "raw"


def test_killed_at_any_moment_and_started_again_gives_what_an_undisturbed_run_gives(raw: Path, tmp_path: Path) -> None:
    write_raw(raw, 2)
    killed = kill_everywhere("tests.gss_train.common.preparing:prepare", tmp_path / "out", str(raw))
    expected = contents(tmp_path / "out" / "undisturbed")
    files = [f"BraTS20_Training_00{number}.{kind}" for number in (1, 2) for kind in ("json", "npy")]
    assert sorted(expected) == [*files, "index.jsonl"]
    assert len(killed) > 16
    for folder in killed:
        assert contents(folder) == expected, folder.name


def test_a_run_interrupted_while_writing_leaves_nothing_that_looks_complete(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    prepare(out, raw)
    with monkeypatch.context() as patch:
        patch.setattr("gss_train.data.prepared.Metadata.to_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(out, raw, size=16)
    # The older description must not stand beside the newer voxels.
    assert load_prepared(out) == []
    assert sorted(path.name for path in out.iterdir()) == ["BraTS20_Training_001.npy", "index.jsonl"]


def test_a_full_disk_is_named_and_loses_nothing(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    prepare(out, raw)
    before = contents(out)
    write_raw(raw, 2)
    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", disk_full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            prepare(out, raw)
    assert str(caught.value).startswith(f"{out}: cannot write index.jsonl")
    assert "MB are free there" in str(caught.value)
    # It may name what was not made.
    assert {**contents(out), "index.jsonl": before["index.jsonl"]} == before
    assert len(prepare(out, raw).subjects) == 2


def test_a_folder_that_cannot_be_made_is_named(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"cannot write index\.jsonl") as caught:
        prepare(tmp_path / "file" / "out", raw)
    assert str(tmp_path / "file" / "out") in str(caught.value)
    assert (tmp_path / "file").read_text() == "no folder"


def test_no_permission_is_named_and_what_stood_there_still_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def refuse(*_args: object, **_keywords: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "replace", refuse)
    with (
        pytest.raises(OSError, match=rf"{tmp_path}: cannot write file \(Permission denied\)"),
        open_replacing(path) as file,
    ):
        file.write(b"new")
    assert contents(tmp_path) == {"file": b"old"}


def test_partial_files_of_dead_processes_are_removed_and_others_kept(tmp_path: Path) -> None:
    host = socket.gethostname()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    old, living = tmp_path / ".a.npy.1@elsewhere.partial", tmp_path / f".b.npy.{os.getpid()}@{host}.partial"
    dead, other = tmp_path / f".c.npy.{ended.pid}@{host}.partial", tmp_path / ".d.npy.1@elsewhere.partial"
    mine = tmp_path / "notes.partial"
    for path in (old, living, dead, other, mine):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    remove_stale_partials(tmp_path)
    assert set(tmp_path.iterdir()) == {living, other, mine}
    assert [final_name(path.name) for path in (living, mine)] == ["b.npy", "notes.partial"]
    remove_stale_partials(tmp_path, locked=True)
    assert set(tmp_path.iterdir()) == {mine}
    remove_stale_partials(tmp_path / "no-such-folder")
