"""Reads users' own data: a list of subjects and files, and beside it what the labels mean."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gss_train.common import UserError
from gss_train.data.categories import read_categories
from gss_train.data.datasets import MODALITIES, VOLUME_ENDINGS, Dataset, Subject

_SUBJECT, _LABEL = "subject", "seg"
_SCANS = {modality.lower(): modality for modality in MODALITIES}
_FILES = (*_SCANS, _LABEL)
_COLUMNS = (_SUBJECT, *_FILES)
# Prepared files are called after their subject.
_NAME = re.compile(r"\w[\w .+-]*", re.ASCII)


class ManifestError(UserError):
    """A manifest, or the file of its categories, cannot be used; the message lists every fault of both."""


@dataclass(frozen=True)
class _Row:
    """One subject as it is written: line of the manifest, and text by column; empty where nothing is given."""

    line: int
    cells: dict[str, str]


def read_manifest(manifest: Path, categories: Path | None = None) -> tuple[Dataset, list[Subject]]:
    """Reads a user's own data set.

    The manifest is a CSV table with a line of column names, or a JSON list of objects with such keys: `subject`, a name
    of letters, digits, spaces and `_.+-`; `flair`, `t1ce`, `t1`, `t2`, the files of the scans, at least one of them;
    `seg`, the file of the annotation, if any. Paths are relative to the manifest's folder; what a subject lacks is left
    empty or out.

    Args:
        manifest: a `.csv` or `.json` file.
        categories: the file read by `read_categories`; by default `<stem>.dataset.json` beside the manifest.

    Returns:
        The data set, and its subjects sorted by name.

    Raises:
        ManifestError: either file is missing or has faults; one error lists all of them, with the manifest's lines.
    """
    manifest = Path(manifest)
    faults: list[str] = []
    rows = _read_rows(manifest, faults)
    subjects = _read_subjects(manifest, rows, faults)
    if not subjects and not faults:
        faults.append(f"{manifest}: names no subject, should name at least one")
    categories = categories or manifest.with_name(f"{manifest.stem}.dataset.json")
    dataset = read_categories(categories, manifest.stem, faults)
    if faults or dataset is None:
        raise ManifestError(f"{manifest}: {len(faults)} fault{'s' * (len(faults) != 1)}\n  " + "\n  ".join(faults))
    return dataset, sorted(subjects, key=lambda subject: subject.name)


def _read_rows(manifest: Path, faults: list[str]) -> list[_Row]:
    readers = {".csv": _csv_rows, ".json": _json_rows}
    if manifest.suffix.lower() not in readers:
        faults.append(f"{manifest}: file name ends with {manifest.suffix!r}, should end with .csv or .json")
        return []
    try:
        # Spreadsheets put a byte order mark at the start.
        text = manifest.read_text(encoding="utf-8-sig")
        return list(readers[manifest.suffix.lower()](text, faults))
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        faults.append(f"{manifest}: cannot be read, should be a UTF-8 text with {', '.join(_COLUMNS)}: {error}")
        return []


def _csv_rows(text: str, faults: list[str]) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    for cells in reader:
        line = reader.line_num
        stripped = [cell.strip() for cell in cells]
        if not any(stripped):
            continue
        if columns is None:
            columns = [column.lower() for column in stripped]
            _check_columns(columns, line, faults)
            if _SUBJECT not in columns:
                return
        elif len(cells) > len(columns):
            faults.append(f"line {line}: has {len(cells)} cells, should have {len(columns)} as the first line")
        else:
            yield _Row(line, dict(zip(columns, stripped, strict=False)))


def _check_columns(columns: list[str], line: int, faults: list[str]) -> None:
    faults += [_unknown_column(line, column) for column in columns if column not in _COLUMNS]
    repeated = {column for column in columns if columns.count(column) > 1}
    faults += [f"line {line}: names the column {column!r} twice" for column in sorted(repeated)]
    if _SUBJECT not in columns:
        faults.append(
            f"line {line}: lacks the column {_SUBJECT!r}, should be column names such as {','.join(_COLUMNS)}"
        )


def _unknown_column(line: int, column: str) -> str:
    return f"line {line}: unknown column {column!r}, should be one of {', '.join(_COLUMNS)}"


def _json_rows(text: str, faults: list[str]) -> Iterator[_Row]:
    """Decodes a list as a whole, and then object by object, which tells on which line each begins."""
    json.loads(text)
    if not text.lstrip().startswith("["):
        raise ValueError("it is no JSON list")
    decoder = json.JSONDecoder(object_pairs_hook=tuple)
    position = text.index("[") + 1
    while True:
        position = next(i for i in range(position, len(text)) if text[i] not in " \t\r\n,")
        if text[position] == "]":
            return
        line = text.count("\n", 0, position) + 1
        item, position = decoder.raw_decode(text, position)
        yield from _json_row(item, line, faults)


def _json_row(item: Any, line: int, faults: list[str]) -> Iterator[_Row]:
    # Objects come as tuples of pairs, lists as lists.
    if not isinstance(item, tuple):
        faults.append(f"line {line}: holds {item!r}, should be an object with keys such as {', '.join(_COLUMNS)}")
        return
    cells: dict[str, str] = {}
    for key, value in item:
        column = key.strip().lower()
        if column not in _COLUMNS:
            faults.append(_unknown_column(line, column))
        elif column in cells:
            faults.append(f"line {line}: gives {column!r} twice")
        elif value is not None and not isinstance(value, str):
            faults.append(f"line {line}: {column} is {value!r}, should be text")
        else:
            cells[column] = (value or "").strip()
    yield _Row(line, cells)


def _read_subjects(manifest: Path, rows: list[_Row], faults: list[str]) -> list[Subject]:
    subjects = []
    lines: dict[str, int] = {}
    used: dict[Path, int] = {}
    for row in rows:
        name = row.cells.get(_SUBJECT, "")
        if not _NAME.fullmatch(name):
            faults.append(
                f"line {row.line}: subject is {name!r}, should be a name of letters, digits, spaces and _.+-, that "
                "starts with a letter, a digit or _"
            )
        # Some file systems hold names that differ in case only for the same.
        elif name.lower() in lines:
            faults.append(f"line {row.line}: subject {name} is there already, on line {lines[name.lower()]}")
        lines.setdefault(name.lower(), row.line)
        files = {column: manifest.parent / row.cells[column] for column in _FILES if row.cells.get(column)}
        for column, file in files.items():
            _check_file(f"line {row.line}: {column} of {name}", file, row.line, used, faults)
        images = {modality: files[column] for column, modality in _SCANS.items() if column in files}
        if not images:
            faults.append(f"line {row.line}: {name} has no scan, should have at least one of {', '.join(_SCANS)}")
        subjects.append(Subject(name, None, images, files.get(_LABEL)))
    return subjects


def _check_file(what: str, file: Path, line: int, used: dict[Path, int], faults: list[str]) -> None:
    try:
        is_file, problem = file.is_file(), "is a folder" if file.is_dir() else "does not exist"
    except OSError as error:
        is_file, problem = False, f"cannot be reached ({error.strerror})"
    if not is_file:
        faults.append(f"{what}: {file} {problem}, should be a file")
    elif not file.name.endswith(VOLUME_ENDINGS):
        faults.append(f"{what}: {file} should end with one of {', '.join(VOLUME_ENDINGS)}")
    elif file in used:
        faults.append(f"{what}: {file} is given already, on line {used[file]}; each file should have one purpose")
    used.setdefault(file, line)
