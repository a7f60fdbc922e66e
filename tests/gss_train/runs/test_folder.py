from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gss_train.common.errors import UserError
from gss_train.config import parse_config
from gss_train.runs.folder import RunFolder, check_output, refuse_other_settings, run_status


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.open(tmp_path / "run", resume=False) as opened:
        yield opened


def begin(path: Path, *, resume: bool) -> RunFolder:
    """A folder that was opened, and is closed again."""
    with RunFolder.open(path, resume=resume) as opened:
        return opened


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize("resume", [True, False])
def test_new_and_empty_folders_are_taken(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("runs/new", "empty"):
        check_output(tmp_path / name, resume=resume)
        with RunFolder.open(tmp_path / name, resume=resume) as folder:
            assert folder.old_config is None
            assert run_status(folder.path) == "new"
        assert files(tmp_path / name) == ["run.lock"]
        # A process that was killed before it wrote anything leaves this.
        begin(tmp_path / name, resume=resume)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder", "hidden"])
def test_used_folders_and_files_are_refused_and_kept(kind: str, resume: bool, tmp_path: Path) -> None:
    output = tmp_path / "run"
    if kind == "file":
        output.write_text("mine")
    else:
        output.mkdir()
        (output / (".notes" if kind == "hidden" else "notes.txt")).write_text("mine")
    for refuse in (check_output, begin):
        with pytest.raises(UserError, match=r"--output: .*run exists and is not an empty folder"):
            refuse(output, resume=resume)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_asking_makes_no_folder(tmp_path: Path) -> None:
    for resume in (True, False):
        check_output(tmp_path / "later", resume=resume)
    assert not (tmp_path / "later").exists()


def test_a_run_is_gone_on_with_only_where_that_is_wanted(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, resume=True) as folder:
        folder.write_json("config.json", {"training": {"epochs": 3}})
        folder.log_metrics({"kind": "epoch"})
    with RunFolder.open(folder.path, resume=True) as again:
        assert again.old_config == {"training": {"epochs": 3}}
    with pytest.raises(UserError, match=r"--output: .* exists and is not an empty folder; name another one"):
        begin(folder.path, resume=False)


@pytest.mark.parametrize("name", ["environment.json", "split.json", ".split.json.77@there.partial"])
def test_a_run_that_hardly_began_is_begun_again_only_where_that_is_wanted(name: str, tmp_path: Path) -> None:
    for other in (name, "run.lock"):
        (tmp_path / other).write_text("{}")
    for refuse in (check_output, begin):
        with pytest.raises(UserError, match=r"--output: .* exists and is not an empty folder; name another one"):
            refuse(tmp_path, resume=False)
    check_output(tmp_path, resume=True)
    with RunFolder.open(tmp_path, resume=True) as folder:
        assert folder.old_config is None


def test_temporary_files_of_killed_processes_go_whoever_wrote_them(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run", resume=True)
    folder.write_json("config.json", {})
    for part in (folder.path, folder.checkpoints, folder.figures, folder.bad_steps):
        part.mkdir(exist_ok=True)
        (part / f".a.pt.{os.getpid()}@{socket.gethostname()}.partial").write_text("x")
        (part / ".b.pt.1@elsewhere.partial").write_text("x")
        (part / ".mine").write_text("x")
    begin(folder.path, resume=True)
    left = sorted(path.name for path in folder.path.rglob("*") if path.is_file())
    assert left == [*[".mine"] * 4, "config.json", "run.lock"]


@pytest.mark.parametrize("text", ["", '{"training": {', "[1]", "\udcff"])
def test_settings_that_cannot_be_read_are_named(text: str, folder: RunFolder) -> None:
    (folder.path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"run/config\.json: "):
        _ = folder.old_config


def test_a_run_of_before_there_were_published_splits_keeps_its_own(tmp_path: Path) -> None:
    flags = ["--dataset", "brats2018", "--data-root", "raw", "--output", str(tmp_path)]
    wanted = parse_config(flags)
    assert wanted.data.split == "auto"
    before = wanted.to_json()
    del before["data"]["split"]
    (tmp_path / "config.json").write_text(json.dumps(before))
    assert parse_config(flags).data.split == "seeded"
    with pytest.raises(UserError, match='--split: was "seeded", now "auto"'):
        refuse_other_settings(parse_config([*flags, "--split", "auto"]), tmp_path)


def test_a_refused_folder_is_not_kept_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process wrote into it between the first look and the lock."""
    looks = iter([None, UserError("--output: taken")])

    def look(_path: Path, *, resume: bool) -> None:
        if (fault := next(looks)) is not None:
            raise fault

    with monkeypatch.context() as patch:
        patch.setattr("gss_train.runs.folder.check_output", look)
        with pytest.raises(UserError, match="taken"):
            begin(tmp_path / "run", resume=False)
    begin(tmp_path / "run", resume=False)


def test_metrics_go_to_the_folder_until_it_is_closed(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, resume=True) as folder:
        folder.log_metrics({"step": 0})
        length = folder.metrics_length()
        folder.log_metrics({"step": 1})
        folder.cut_metrics(length)
    with pytest.raises(ValueError, match="is closed"):
        folder.log_metrics({"step": 2})
    assert folder.metrics.read_text() == '{"step": 0}\n'


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
    assert run_status(folder.path) == "finished"
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
