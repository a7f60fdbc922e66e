from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gss_train.engine.checkpoint import load_weights, read_checkpoint, save_checkpoint
from gss_train.engine.run_folder import RunFolder, describe_environment, refuse_used_folder
from gss_train.errors import UserError


def test_new_and_empty_folders_are_taken(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "runs" / "new").path.is_dir()
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "runs"]


@pytest.mark.parametrize("kind", ["file", "folder", "hidden"])
def test_used_folders_and_files_are_refused_and_kept(kind: str, tmp_path: Path) -> None:
    output = tmp_path / "run"
    if kind == "file":
        output.write_text("mine")
    else:
        output.mkdir()
        (output / (".notes" if kind == "hidden" else "notes.txt")).write_text("mine")
    for refuse in (refuse_used_folder, RunFolder):
        with pytest.raises(UserError, match=r"--output: .*run exists and is not an empty folder"):
            refuse(output)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_asking_makes_no_folder(tmp_path: Path) -> None:
    refuse_used_folder(tmp_path / "later")
    assert not (tmp_path / "later").exists()


def test_metrics_are_appended_as_lines_of_json(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    records = [{"kind": "epoch", "terms": {"total": 1.5e-9}}, {"kind": "epoch", "note": "two\nlines, ü"}, {"kind": "t"}]
    for number, record in enumerate(records):
        folder.log_metrics(record)
        # Whoever follows the file sees whole lines only.
        text = (folder.path / "metrics.jsonl").read_text(encoding="utf-8")
        assert text.endswith("\n")
        assert [json.loads(line) for line in text.splitlines()] == records[: number + 1]


def test_files_have_their_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_json("split.json", {"train": ("a", "b")})
    assert json.loads((folder.path / "split.json").read_text()) == {"train": ["a", "b"]}
    folder.write_text("subsets.md", "| ● |\n")
    assert (folder.path / "subsets.md").read_text(encoding="utf-8") == "| ● |\n"
    assert folder.stage_checkpoint("GSS round 2").name == "gss-round-2.pt"
    assert folder.checkpoint != folder.stage_checkpoint("baseline")


def test_the_environment_names_what_decides_numbers() -> None:
    environment = json.loads(json.dumps(describe_environment(torch.device("cpu"))))
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["packages"]["gss"]
    assert environment["python"] == platform.python_version()
    assert environment["device"] == "cpu"
    assert environment["gpu"] is None
    assert environment["threads"] == torch.get_num_threads()
    assert environment["processors"] >= 1


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gss_train.engine.run_folder._PACKAGES", ("torch", "no-such-package"))
    assert describe_environment(torch.device("cpu"))["packages"] == {
        "torch": torch.__version__,
        "no-such-package": None,
    }


def save(path: Path, value: float) -> None:
    network = nn.Linear(2, 1)
    nn.init.constant_(network.weight, value)
    save_checkpoint(path, network, torch.optim.Adam(network.parameters()), {"epoch": value})


def test_a_crash_while_saving_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    save(path, 1.0)
    before = path.read_bytes()

    def fail(_content: object, file: Any) -> None:
        file.write(b"PK\x03\x04 half of it")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="No space left"):
            save(path, 2.0)
    assert path.read_bytes() == before
    network = nn.Linear(2, 1)
    load_weights(network, path)
    assert torch.equal(network.weight, torch.ones(1, 2))

    save(path, 3.0)
    assert read_checkpoint(path)["progress"] == {"epoch": 3.0}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said_as_such(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.with_name("checkpoint.pt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="checkpoint"):
        save(path, 1.0)
