"""What a run notes is there line by line, and goes on from where a checkpoint was."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gss_train.common.errors import UserError
from gss_train.runs.records import MetricsLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[MetricsLog]:
    opened = MetricsLog(tmp_path / "metrics.jsonl")
    yield opened
    opened.close()


def test_metrics_are_appended_as_lines_of_json(log: MetricsLog) -> None:
    records = [{"kind": "epoch", "terms": {"total": 1.5e-9}}, {"kind": "epoch", "note": "two\nlines, ü"}, {"kind": "t"}]
    for number, record in enumerate(records):
        log.append(record)
        # Whoever follows the file sees whole lines only.
        text = log.path.read_text(encoding="utf-8")
        assert text.endswith("\n")
        assert [json.loads(line) for line in text.splitlines()] == records[: number + 1]


def test_numbers_that_json_has_not_become_null(log: MetricsLog) -> None:
    log.append({"a": float("nan"), "b": [float("inf"), 1.0], "c": {"d": (-float("inf"), 2, None, True, "NaN")}})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads(log.path.read_text(), parse_constant=refuse)
    assert line == {"a": None, "b": [None, 1.0], "c": {"d": [None, 2, None, True, "NaN"]}}


def test_a_record_that_is_no_json_leaves_no_half_line(log: MetricsLog) -> None:
    log.append({"kind": "epoch"})
    with pytest.raises(TypeError):
        log.append({"kind": "epoch", "terms": torch.zeros(1)})
    assert log.path.read_text() == '{"kind": "epoch"}\n'


def test_a_full_disk_leaves_no_half_line(log: MetricsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append({"kind": "epoch"})

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
        patch.setattr(log, "_file", Filling(log._file))
        with pytest.raises(OSError, match=r"metrics\.jsonl: cannot be written: No space left"):
            log.append({"kind": "validation"})
    log.append({"kind": "test"})
    assert log.path.read_text() == '{"kind": "epoch"}\n{"kind": "test"}\n'


def test_metrics_go_on_from_where_a_checkpoint_was(log: MetricsLog) -> None:
    lengths = [log.length()]
    for step in range(3):
        log.append({"step": step, "note": "ü"})
        lengths.append(log.length())
    assert lengths[0] == 0
    assert lengths[-1] == log.path.stat().st_size
    # A killed process can leave half a line.
    with log.path.open("ab") as file:
        file.write(b'{"step": 3, "no')
    log.close()
    again = MetricsLog(log.path)
    again.cut(lengths[2])
    assert again.length() == lengths[2]
    again.append({"step": "again"})
    assert [json.loads(line)["step"] for line in again.path.read_text().splitlines()] == [0, 1, "again"]
    again.cut(0)
    assert again.path.read_bytes() == b""
    again.close()


def test_metrics_that_were_changed_are_refused_and_kept(log: MetricsLog) -> None:
    log.append({"step": 0})
    log.append({"step": 1})
    before = log.path.read_bytes()
    for length, what in [
        (len(before) + 1, "has 24 bytes, had 25"),
        (len(before) - 2, "has no line that ends at byte 22"),
    ]:
        with pytest.raises(UserError, match=rf"metrics\.jsonl: {what}"):
            log.cut(length)
    assert log.path.read_bytes() == before


def test_metrics_are_on_the_disk_before_their_length_is_told(log: MetricsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append({"step": 0})
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    log.length()
    log.cut(0)
    assert synced == [log.path.stat().st_ino] * 2


def test_the_name_of_the_metrics_is_on_the_disk_before_their_first_line(
    log: MetricsLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def noted(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), log.path.parent.stat()):
            synced.append((sorted(path.name for path in log.path.parent.iterdir()), log.path.read_bytes()))

    monkeypatch.setattr("os.fsync", noted)
    log.append({"step": 0})
    assert synced == [(["metrics.jsonl"], b"")]
