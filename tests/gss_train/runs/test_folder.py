from __future__ import annotations

import errno
import json
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gss_train.common.errors import UserError
from gss_train.runs.folder import RunFolder, check_output, describe_environment

# Locks a folder, and starts two processes that live on: one forked, as loader workers are, and one that runs a program
# and was given all open files.
HOLDER = """
import os, subprocess, sys, time
from pathlib import Path
from gss_train.runs.folder import RunFolder
folder = RunFolder.open(Path(sys.argv[1]), resume=True)
program = subprocess.Popen(["sleep", "60"], close_fds=False)
forked = os.fork()
if forked == 0:
    print(os.getppid(), os.getpid(), program.pid, flush=True)
    time.sleep(60)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.open(tmp_path / "run", resume=False) as opened:
        yield opened


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize("resume", [True, False])
def test_new_and_empty_folders_are_taken(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("runs/new", "empty"):
        check_output(tmp_path / name, resume=resume)
        with RunFolder.open(tmp_path / name, resume=resume) as folder:
            assert folder.old_config is None
            assert not folder.is_finished
        assert files(tmp_path / name) == ["run.lock"]
        # A process that was killed before it wrote anything leaves this.
        RunFolder.open(tmp_path / name, resume=resume).close()


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder", "hidden"])
def test_used_folders_and_files_are_refused_and_kept(kind: str, resume: bool, tmp_path: Path) -> None:
    output = tmp_path / "run"
    if kind == "file":
        output.write_text("mine")
    else:
        output.mkdir()
        (output / (".notes" if kind == "hidden" else "notes.txt")).write_text("mine")
    for refuse in (check_output, RunFolder.open):
        with pytest.raises(UserError, match=r"--output: .*run exists and is not an empty folder"):
            refuse(output, resume=resume)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_asking_makes_no_folder(tmp_path: Path) -> None:
    for resume in (True, False):
        check_output(tmp_path / "later", resume=resume)
    assert not (tmp_path / "later").exists()


def test_a_run_is_gone_on_with_only_where_that_is_wanted(folder: RunFolder) -> None:
    folder.write_json("config.json", {"training": {"epochs": 3}})
    folder.log_metrics({"kind": "epoch"})
    folder.close()
    with RunFolder.open(folder.path, resume=True) as again:
        assert again.old_config == {"training": {"epochs": 3}}
    with pytest.raises(UserError, match=r"--output: .*run exists and is not an empty folder; name another one"):
        RunFolder.open(folder.path, resume=False)


@pytest.mark.parametrize("number", range(1, 9))
def test_a_run_killed_while_it_wrote_its_first_files_is_begun_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SIGKILL leaves them: the temporary file too."""
    operations = 0

    def killed_before(operation: Any) -> Any:
        def count(*arguments: Any, **options: Any) -> Any:
            nonlocal operations
            operations += 1
            if operations >= number:
                raise InterruptedError
            return operation(*arguments, **options)

        return count

    folder = RunFolder.open(tmp_path / "run", resume=True)
    with monkeypatch.context() as patch:
        for method in ("replace", "unlink"):
            patch.setattr(Path, method, killed_before(getattr(Path, method)))
        with pytest.raises(OSError, match="cannot write"):  # noqa: PT012  (any of them may be the one)
            for name in ("environment.json", "split.json", "left_out.json", "config.json", "more.json"):
                folder.write_json(name, {"name": name})
    folder.close()
    check_output(folder.path, resume=True)
    with RunFolder.open(folder.path, resume=True) as again:
        assert again.old_config in (None, {"name": "config.json"})
    assert not list(folder.path.glob(".*"))


@pytest.mark.parametrize("name", ["environment.json", "split.json", ".split.json.77@there.partial"])
def test_a_run_that_hardly_began_is_begun_again_only_where_that_is_wanted(name: str, tmp_path: Path) -> None:
    for other in (name, "run.lock"):
        (tmp_path / other).write_text("{}")
    for refuse in (check_output, RunFolder.open):
        with pytest.raises(UserError, match=r"--output: .* exists and is not an empty folder; name another one"):
            refuse(tmp_path, resume=False)
    check_output(tmp_path, resume=True)
    with RunFolder.open(tmp_path, resume=True) as folder:
        assert folder.old_config is None


def test_temporary_files_of_killed_processes_go_whoever_wrote_them(folder: RunFolder) -> None:
    folder.write_json("config.json", {})
    folder.close()
    for part in (folder.path, folder.checkpoints, folder.figures, folder.bad_steps):
        part.mkdir(exist_ok=True)
        (part / f".a.pt.{os.getpid()}@{socket.gethostname()}.partial").write_text("x")
        (part / ".b.pt.1@elsewhere.partial").write_text("x")
        (part / ".mine").write_text("x")
    RunFolder.open(folder.path, resume=True).close()
    left = sorted(path.name for path in folder.path.rglob("*") if path.is_file())
    assert left == [*[".mine"] * 4, "config.json", "run.lock"]


@pytest.mark.parametrize("text", ["", '{"training": {', "[1]", "\udcff"])
def test_settings_that_cannot_be_read_are_named(text: str, folder: RunFolder) -> None:
    (folder.path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"run/config\.json: "):
        _ = folder.old_config


def test_a_second_opening_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    first = RunFolder.open(tmp_path / "run", resume=True)
    for _ in range(2):  # and the refused one has not opened the folder to others
        with pytest.raises(UserError) as refused:
            RunFolder.open(tmp_path / "run", resume=True)
    message = str(refused.value)
    assert message.startswith(f"--output: {tmp_path / 'run'} is in use by process {os.getpid()} on ")
    assert socket.gethostname() in message
    first.close()
    second = RunFolder.open(tmp_path / "run", resume=True)
    first.close()
    with pytest.raises(UserError, match="in use"):
        RunFolder.open(tmp_path / "run", resume=True)
    second.close()


def test_the_holder_before_is_not_named(tmp_path: Path) -> None:
    before = f"process {os.getpid()}123 on a-host-with-a-long-name.{socket.gethostname()}\n"
    (tmp_path / "run.lock").write_text(before)
    with (
        RunFolder.open(tmp_path, resume=True),
        pytest.raises(UserError, match=f"in use by process {os.getpid()} on {socket.gethostname()}; wait"),
    ):
        RunFolder.open(tmp_path, resume=True)


def test_a_refused_folder_is_not_kept_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process wrote into it between the first look and the lock."""
    looks = iter([None, UserError("--output: taken")])

    def look(_path: Path, *, resume: bool) -> None:
        if (fault := next(looks)) is not None:
            raise fault

    with monkeypatch.context() as patch:
        patch.setattr("gss_train.runs.folder.check_output", look)
        with pytest.raises(UserError, match="taken"):
            RunFolder.open(tmp_path / "run", resume=False)
    RunFolder.open(tmp_path / "run", resume=False).close()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(UserError, match=r"--output: .*run cannot be locked against a second process: No locks"):
        RunFolder.open(tmp_path / "run", resume=True)


def test_a_killed_process_frees_its_folder_though_its_children_live_on(tmp_path: Path) -> None:
    output = tmp_path / "run"
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        holder, *children = (int(word) for word in process.stdout.readline().split())
        try:
            with pytest.raises(UserError, match=f"in use by process {holder} on {socket.gethostname()};"):
                RunFolder.open(output, resume=True)
            process.kill()
            process.wait()
            with RunFolder.open(output, resume=True):
                for child in children:
                    os.kill(child, 0)
        finally:
            process.kill()
            for child in children:
                os.kill(child, signal.SIGKILL)


def test_metrics_are_appended_as_lines_of_json(folder: RunFolder) -> None:
    records = [{"kind": "epoch", "terms": {"total": 1.5e-9}}, {"kind": "epoch", "note": "two\nlines, ü"}, {"kind": "t"}]
    for number, record in enumerate(records):
        folder.log_metrics(record)
        # Whoever follows the file sees whole lines only.
        text = folder.metrics.read_text(encoding="utf-8")
        assert text.endswith("\n")
        assert [json.loads(line) for line in text.splitlines()] == records[: number + 1]


def test_numbers_that_json_has_not_become_null(folder: RunFolder) -> None:
    folder.log_metrics({"a": float("nan"), "b": [float("inf"), 1.0], "c": {"d": (-float("inf"), 2, None, True, "NaN")}})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads(folder.metrics.read_text(), parse_constant=refuse)
    assert line == {"a": None, "b": [None, 1.0], "c": {"d": [None, 2, None, True, "NaN"]}}


def test_a_record_that_is_no_json_leaves_no_half_line(folder: RunFolder) -> None:
    folder.log_metrics({"kind": "epoch"})
    with pytest.raises(TypeError):
        folder.log_metrics({"kind": "epoch", "terms": torch.zeros(1)})
    assert folder.metrics.read_text() == '{"kind": "epoch"}\n'


def test_a_full_disk_leaves_no_half_line(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.log_metrics({"kind": "epoch"})

    class Filling:
        """A file on a disk that has room for three bytes more."""

        def __init__(self, file: Any) -> None:
            self.file = file
            self.room = 3

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: memoryview) -> int:
            if self.room == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room = 0
            return self.file.write(data[:3])

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_metrics", Filling(folder._metrics))
        with pytest.raises(OSError, match=r"metrics\.jsonl: cannot be written: No space left"):
            folder.log_metrics({"kind": "validation"})
    folder.log_metrics({"kind": "test"})
    assert folder.metrics.read_text() == '{"kind": "epoch"}\n{"kind": "test"}\n'


def test_metrics_go_on_from_where_a_checkpoint_was(folder: RunFolder) -> None:
    lengths = [folder.metrics_length()]
    for step in range(3):
        folder.log_metrics({"step": step, "note": "ü"})
        lengths.append(folder.metrics_length())
    assert lengths[0] == 0
    assert lengths[-1] == folder.metrics.stat().st_size
    folder.write_json("config.json", {})
    # A killed process can leave half a line.
    with folder.metrics.open("ab") as file:
        file.write(b'{"step": 3, "no')
    folder.close()
    with RunFolder.open(folder.path, resume=True) as again:
        again.cut_metrics(lengths[2])
        assert again.metrics_length() == lengths[2]
        again.log_metrics({"step": "again"})
        assert [json.loads(line)["step"] for line in again.metrics.read_text().splitlines()] == [0, 1, "again"]
        again.cut_metrics(0)
        assert again.metrics.read_bytes() == b""


def test_metrics_that_were_changed_are_refused_and_kept(folder: RunFolder) -> None:
    folder.log_metrics({"step": 0})
    folder.log_metrics({"step": 1})
    before = folder.metrics.read_bytes()
    for length, what in [
        (len(before) + 1, "has 24 bytes, had 25"),
        (len(before) - 2, "has no line that ends at byte 22"),
    ]:
        with pytest.raises(UserError, match=rf"metrics\.jsonl: {what}"):
            folder.cut_metrics(length)
    assert folder.metrics.read_bytes() == before


def test_metrics_are_on_the_disk_before_their_length_is_told(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.log_metrics({"step": 0})
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    folder.metrics_length()
    folder.cut_metrics(0)
    assert synced == [folder.metrics.stat().st_ino] * 2


def test_the_name_of_the_metrics_is_on_the_disk_before_their_first_line(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def noted(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), folder.path.stat()):
            synced.append((files(folder.path), folder.metrics.read_bytes()))

    monkeypatch.setattr("os.fsync", noted)
    folder.log_metrics({"step": 0})
    assert synced == [(["metrics.jsonl", "run.lock"], b"")]


def test_a_closed_folder_writes_no_metrics(folder: RunFolder) -> None:
    folder.close()
    with pytest.raises(ValueError, match="is closed"):
        folder.log_metrics({"step": 0})
    assert not folder.metrics.exists()


def test_files_are_written_whole_or_not_at_all(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_json("split.json", {"train": ("a", "b")})

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        for name in ("split.json", "subsets.md"):
            with pytest.raises(OSError, match=f"{name}.*No space left"):
                folder.write_text(name, "new")
    assert json.loads((folder.path / "split.json").read_text()) == {"train": ["a", "b"]}
    assert files(folder.path) == ["run.lock", "split.json"]


def test_nothing_is_left_in_memory_when_a_file_goes_to_the_disk(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[int, int] = {}

    def noted(descriptor: int) -> None:
        status = os.fstat(descriptor)
        sizes[status.st_ino] = status.st_size

    monkeypatch.setattr("os.fsync", noted)
    folder.write_text("subsets.md", "| ● |\n")
    written = (folder.path / "subsets.md").stat()
    assert sizes[written.st_ino] == written.st_size > 0


def test_files_have_their_names(folder: RunFolder) -> None:
    folder.write_text("subsets.md", "| ● |\n")
    assert (folder.path / "subsets.md").read_text(encoding="utf-8") == "| ● |\n"
    assert folder.is_finished
    named = {
        "gss-round-2.pt": folder.stage_checkpoint("GSS round 2"),
        "baseline.pt": folder.stage_checkpoint("baseline"),
        "figures/epoch-0012.png": folder.epoch_figure(12),
        "summary.png": folder.summary,
        "checkpoints": folder.checkpoints,
        "tensorboard": folder.tensorboard,
        "bad-steps": folder.bad_steps,
        "metrics.jsonl": folder.metrics,
    }
    assert {name: str(path.relative_to(folder.path)) for name, path in named.items()} == {name: name for name in named}


def test_the_environment_names_what_decides_numbers() -> None:
    environment = json.loads(json.dumps(describe_environment(torch.device("cpu"))))
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["packages"]["gss"]
    assert "tensorboard" in environment["packages"]
    assert environment["python"] == platform.python_version()
    assert environment["device"] == "cpu"
    assert environment["gpu"] is None
    assert environment["threads"] == torch.get_num_threads()
    assert environment["processors"] >= 1


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gss_train.runs.folder._PACKAGES", ("torch", "no-such-package"))
    assert describe_environment(torch.device("cpu"))["packages"] == {
        "torch": torch.__version__,
        "no-such-package": None,
    }
