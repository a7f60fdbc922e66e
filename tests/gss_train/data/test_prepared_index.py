"""The index of prepared files: right whenever its writers are killed, and the only files that are ever deleted."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gss_train.common import UserError
from gss_train.data import InUseError, Recipe, delete_indexed, in_use, indexed_files, is_indexed, read_index
from gss_train.data.prepared_index import IndexedFile, add_to_index

RECIPE = Recipe(4, "brats2020", (0, 1, 2, 4), (128, 128, 128), (2.0, 2.0, 2.5), released_box=True)


def lines(folder: Path) -> list[str]:
    return (folder / "index.jsonl").read_text().splitlines()


def make(folder: Path, *names: str) -> None:
    add_to_index(folder, names, RECIPE)
    for name in names:
        (folder / name).write_text(name)


def add_line(folder: Path, **changes: object) -> None:
    with (folder / "index.jsonl").open("a") as file:
        file.write(json.dumps({**json.loads(lines(folder)[0]), **changes}) + "\n")


def test_files_are_named_once_with_what_they_are_of(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    add_to_index(folder, ["one.npy", "one.json"], RECIPE)
    add_to_index(folder, ["one.npy", "two.npy"], RECIPE)
    assert is_indexed(folder)
    assert sorted(file.name for file in read_index(folder)) == ["one.json", "one.npy", "two.npy"]
    assert len(lines(folder)) == 3
    assert read_index(folder)[0] == IndexedFile("one.json", "brats2020", (2.0, 2.0, 2.5), True, 4)


@pytest.mark.parametrize("left", [b"{", b'{"name": "three.npy", "data', b"\xff\x00"])
def test_what_a_killed_process_wrote_of_a_line_names_nothing(tmp_path: Path, left: bytes) -> None:
    make(tmp_path, "one.npy")
    (tmp_path / "index.jsonl").write_bytes((tmp_path / "index.jsonl").read_bytes() + left)
    assert [file.name for file in read_index(tmp_path)] == ["one.npy"]
    add_to_index(tmp_path, ["two.npy"], RECIPE)
    assert [file.name for file in read_index(tmp_path)] == ["one.npy", "two.npy"]


def write_many(folder: Path, number: int) -> None:
    for turn in range(20):
        add_to_index(folder, [f"shared {turn}.npy", *(f"{number} {turn} {part}.npy" for part in range(5))], RECIPE)


def test_several_processes_lose_none_of_each_others_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(tmp_path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    own = {f"{number} {turn} {part}.npy" for number in range(4) for turn in range(20) for part in range(5)}
    assert {file.name for file in read_index(tmp_path)} == own | {f"shared {turn}.npy" for turn in range(20)}
    assert len(lines(tmp_path)) == 420


@pytest.mark.parametrize(
    "name", ["../one.npy", "/etc/one.npy", "a/one.npy", "a\\one.npy", "..", "", ".npy", "index.jsonl", "a\0.npy", 7]
)
def test_a_name_elsewhere_is_an_error_and_nothing_is_deleted(tmp_path: Path, name: object) -> None:
    folder = tmp_path / "folder"
    make(folder, "one.npy", "two.npy")
    (tmp_path / "one.npy").write_text("mine")
    add_line(folder, name=name)
    for read in (read_index, indexed_files, delete_indexed):
        with pytest.raises(UserError, match=r"index\.jsonl, line 3: .*nothing in its folder is deleted"):
            read(folder)
    assert (tmp_path / "one.npy").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["index.jsonl", "one.npy", "two.npy"]


@pytest.mark.parametrize(
    "line", ["{", "", "[]", '"one.npy"', "{}", '{"name": "one.npy"}', "\udcff", '{"name": "one.npy", "other": 1}']
)
def test_a_damaged_line_is_named_and_nothing_is_deleted(tmp_path: Path, line: str) -> None:
    make(tmp_path, "one.npy", "two.npy")
    first, second = lines(tmp_path)
    (tmp_path / "index.jsonl").write_bytes(f"{first}\n{line}\n{second}\n".encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"index\.jsonl, line 2"):
        delete_indexed(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("changes", [{"spacing": [1, 2]}, {"spacing": "wide"}, {"version": "4"}, {"dataset": None}])
def test_impossible_values_are_an_error(tmp_path: Path, changes: dict[str, object]) -> None:
    make(tmp_path, "one.npy")
    add_line(tmp_path, **changes)
    with pytest.raises(UserError, match=r"index\.jsonl, line 2"):
        read_index(tmp_path)


def test_all_goes_that_is_named_and_the_folder_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    make(folder, "one.npy", "one.json")
    add_to_index(folder, ["never made.npy"], RECIPE)
    # What a killed process leaves of a file.
    (folder / ".one.npy.123@somewhere.partial").write_text("half")
    assert delete_indexed(folder) == []
    assert list(tmp_path.iterdir()) == []


def test_all_else_stays_and_is_told(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    make(folder, "one.npy", "linked.npy", "folder.npy")
    elsewhere.mkdir()
    (elsewhere / "linked.npy").write_text("mine")
    (folder / "linked.npy").unlink()
    (folder / "linked.npy").symlink_to(elsewhere / "linked.npy")
    (folder / "folder.npy").unlink()
    (folder / "folder.npy").mkdir()
    (folder / "folder.npy" / "one.npy").write_text("mine")
    (folder / "two.npy").write_text("mine")
    (folder / ".two.npy.123@somewhere.partial").write_text("mine")
    left = delete_indexed(folder)
    assert left == [".two.npy.123@somewhere.partial", "folder.npy", "linked.npy", "two.npy"]
    assert sorted(path.name for path in folder.iterdir()) == left
    assert (elsewhere / "linked.npy").read_text() == (folder / "folder.npy" / "one.npy").read_text() == "mine"


def test_an_index_that_is_a_link_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    make(folder, "one.npy")
    (folder / "index.jsonl").rename(tmp_path / "other.jsonl")
    (folder / "index.jsonl").symlink_to(tmp_path / "other.jsonl")
    assert not is_indexed(folder)
    with pytest.raises(OSError, match=r"index\.jsonl"):
        delete_indexed(folder)
    assert (folder / "one.npy").exists()


HOLD = """
import sys
from pathlib import Path
from gss_train.data import in_use

with in_use(Path(sys.argv[1])):
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_files_in_use_are_not_deleted_until_their_user_ends(tmp_path: Path) -> None:
    make(tmp_path / "folder", "one.npy")
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / "folder")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"holds\n"
        with in_use(tmp_path / "folder"), pytest.raises(InUseError, match="folder is in use: a training or"):
            delete_indexed(tmp_path / "folder")
        add_to_index(tmp_path / "folder", ["two.npy"], RECIPE)
        assert (tmp_path / "folder" / "one.npy").exists()
        user.kill()
    assert delete_indexed(tmp_path / "folder") == []


def test_files_that_are_being_deleted_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "folder", "one.npy")
    unlink, refused = Path.unlink, []

    def use(path: Path, **options: bool) -> None:
        with pytest.raises(InUseError, match="folder is in use: its files are being deleted"), in_use(path.parent):
            refused.append(path.name)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", use)
    delete_indexed(tmp_path / "folder")
    assert refused == []
    assert not (tmp_path / "folder").exists()
    with in_use(tmp_path / "folder"):
        assert is_indexed(tmp_path / "folder")


def test_a_folder_that_cannot_be_written_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "one.npy")
    opened = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        assert not flags & (os.O_WRONLY | os.O_RDWR)
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with in_use(tmp_path):
        assert (tmp_path / "one.npy").exists()
