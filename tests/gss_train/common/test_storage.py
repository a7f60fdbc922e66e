"""Files are complete or not there: killed processes, full disks, folders that cannot be written."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gss_train.common import storage
from gss_train.common.storage import open_replacing, remove_stale_partials
from gss_train.data.conventions import Dataset
from gss_train.data.layouts import Subject, find_subjects
from gss_train.data.preparation import prepare_dataset, prepare_subject
from gss_train.data.prepared import load_prepared
from tests.gss_train.data.raw_files import Raw, make_raw, write_subject

SIZE = (4, 4, 4)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupted(*_args: object, **_keywords: object) -> None:
    raise KeyboardInterrupt


def disk_full(*_args: object, **_keywords: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Prepares again and again in forks of one process. One is killed just before its first operation on files, the next
# before its second and so on until one comes to its end, and a few at times of their own.
KILLER = """
import os, random, signal, sys, time, warnings
from pathlib import Path
from gss_train.data import DATASETS, find_subjects, prepare_dataset

root, out = Path(sys.argv[1]), Path(sys.argv[2])
subjects = find_subjects(root, DATASETS["brats2020"])

def prepare(folder):
    prepare_dataset(subjects, DATASETS["brats2020"], folder, (4, 4, 4), workers=1)

def fork(folder, operations=None):
    child = os.fork()
    if child:
        return child
    left = [operations]
    def count(event, arguments):
        if event in ("open", "os.rename", "os.remove", "os.mkdir"):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    if operations is not None:
        sys.addaudithook(count)
    prepare(folder)
    os._exit(0)

def finish(folder):
    assert os.waitstatus_to_exitcode(os.waitpid(fork(folder), 0)[1]) == 0

kills = 0
while os.waitstatus_to_exitcode(os.waitpid(fork(out / f"operation-{kills}", kills), 0)[1]):
    finish(out / f"operation-{kills}")
    kills += 1
start = time.monotonic()
prepare(out / "timed")
length = time.monotonic() - start
random.seed(0)
for number in range(8):
    child = fork(out / f"moment-{number}")
    time.sleep(random.uniform(0, length))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    finish(out / f"moment-{number}")
print(kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes that are killed; this system has no os.fork")
def test_killed_at_any_moment_and_started_again_gives_what_an_undisturbed_run_gives(
    tmp_path: Path, brats2020: Dataset
) -> None:
    for number in (1, 2, 3):
        write_subject(tmp_path / "raw" / f"BraTS20_Training_{number:03}", make_raw(seed=number), ".nii")
    undisturbed = tmp_path / "undisturbed"
    prepare_dataset(find_subjects(tmp_path / "raw", brats2020), brats2020, undisturbed, SIZE, workers=1)
    expected = contents(undisturbed)
    assert len(expected) == 6
    command = [sys.executable, "-c", textwrap.dedent(KILLER), str(tmp_path / "raw"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
    folders = list((tmp_path / "out").iterdir())
    assert len(folders) == int(done.stdout) + 10
    for folder in folders:
        assert contents(folder) == expected


def test_a_run_interrupted_while_writing_leaves_nothing_that_looks_complete(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    prepare_subject(raw_subject[0], brats2020, out, SIZE)
    with monkeypatch.context() as patch:
        patch.setattr("gss_train.data.prepared.Metadata.to_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_subject(raw_subject[0], brats2020, out, (16, 16, 16))
    # The older description must not stand beside the newer voxels.
    assert load_prepared(out) == []
    assert [path.name for path in out.iterdir()] == ["BraTS20_Training_001.npy"]


def test_a_full_disk_is_named_and_loses_nothing(
    tmp_path: Path, brats2020: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        write_subject(tmp_path / "raw" / f"BraTS20_Training_{number:03}", make_raw(seed=number), ".nii")
    subjects, out = find_subjects(tmp_path / "raw", brats2020), tmp_path / "out"
    prepare_dataset(subjects[:1], brats2020, out, SIZE, workers=1)
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", disk_full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            prepare_dataset(subjects, brats2020, out, SIZE, workers=1)
    assert str(caught.value).startswith(f"{out}: cannot write BraTS20_Training_002.npy")
    assert "MB are free there" in str(caught.value)
    assert contents(out) == before
    assert len(prepare_dataset(subjects, brats2020, out, SIZE, workers=1).subjects) == 3


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, raw_subject: tuple[Subject, Raw], brats2020: Dataset
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="cannot write BraTS20_Training_001") as caught:
        prepare_subject(raw_subject[0], brats2020, tmp_path / "file" / "out", SIZE)
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
    remove_stale_partials(tmp_path / "no-such-folder")
