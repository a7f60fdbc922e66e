"""The format of results: JSON Lines, each record in the file the moment it exists."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Lines:
    """Appends records to a file, each by one system call: of what was written, no end of a process takes anything.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")  # ends what a killed process did not

    def write(self, kind: str, **fields: Any) -> None:
        """Append a record; floats have five digits, more than figures repeat to."""
        record = {"kind": kind, "at": round(time.time(), 2)} | {name: _rounded(value) for name, value in fields.items()}
        os.write(self._file, json.dumps(record).encode() + b"\n")


def read(path: Path) -> list[Record]:
    """The records of a file, without lines that the end of a process broke off."""
    records: list[Record] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and "kind" in record:
            records.append(record)
    return records


def of_kind(records: list[Record], *kinds: str) -> list[Record]:
    """Those of the kinds, in order."""
    return [record for record in records if record["kind"] in kinds]


def begun(path: Path) -> list[str]:
    """The tests that have begun according to a file."""
    return [record["id"] for record in of_kind(read(path), "begin")]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(own) for name, own in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value
