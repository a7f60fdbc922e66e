"""Reads the splits into training, validation and test subjects that authors publish."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gss_train.common import UserError
from gss_train.data.splits import Split

_PARTS = ("train", "val", "test")
_PURPOSES = {"training": "train", "validation": "val", "inference": "test"}
_HEADERS = {"subject", "subject_id", "name", "id"}
_GRADE_PREFIX = re.compile(r"(HGG|LGG|HG|LG)_")
_MAX_LISTED = 50


class SplitError(UserError):
    """A published split cannot be used; the message lists all that is wrong with it."""


@dataclass(frozen=True)
class _Entry:
    """One line of a split."""

    file: Path
    line: int
    name: str
    part: str


def read_split(path: Path, names: Sequence[str]) -> tuple[Split, tuple[str, ...]]:
    """Reads a published split and finds its subjects among those at hand.

    Text lists have one subject on a line, for training, validation and test in files such as `train.txt`, `val.txt` and
    `test.txt`, or `train2.txt`, `val2.txt` and `test2.txt`. A CSV has two columns, `subject` and one of Training,
    Validation and Inference. Subjects may be named with or without their grade, as `HGG_`, `HG_`, `LGG_` or `LG_`.

    Args:
        path: a folder with `train.txt`, `val.txt` and `test.txt`; or the list of training subjects, with the others
            beside it; or a `.csv` file.
        names: the subjects at hand.

    Returns:
        The split, in the names given here, and those of `names` that it does not name.

    Raises:
        SplitError: a file is missing or not understood, names an unknown subject, one that could be several, or one
            twice, or leaves training, validation or test empty; one error lists all of it.
    """
    path = Path(path)
    faults: list[str] = []
    entries = _read_table(path, faults) if path.suffix.lower() == ".csv" else _read_lists(path, faults)
    parts = _match(entries, names, faults)
    if not faults:
        faults += [f"names no subject for {part}, should name at least one" for part in _PARTS if not parts[part]]
    if faults:
        more = len(faults) - _MAX_LISTED
        shown = [*faults[:_MAX_LISTED], f"... and {more} more"] if more > 0 else faults
        raise SplitError(f"{path}: this split cannot be used:\n  " + "\n  ".join(shown))
    train, validation, test = (tuple(sorted(parts[part])) for part in _PARTS)
    return Split(train, validation, test), tuple(sorted(set(names) - {*train, *validation, *test}))


def _read_lists(path: Path, faults: list[str]) -> list[_Entry]:
    entries = []
    for part, file in _list_files(path, faults).items():
        for number, line in enumerate(_read_text(file, faults).splitlines(), start=1):
            if line.strip():
                entries.append(_Entry(file, number, line.strip(), part))
    return entries


def _list_files(path: Path, faults: list[str]) -> dict[str, Path]:
    if path.is_dir():
        return {part: path / f"{part}.txt" for part in _PARTS}
    if path.suffix.lower() == ".txt" and path.name.startswith("train"):
        return {part: path.with_name(part + path.name.removeprefix("train")) for part in _PARTS}
    if not path.exists():
        faults.append(f"{path}: no such file or folder")
    else:
        faults.append(f"{path}: should be a folder with train.txt, val.txt and test.txt, a train*.txt or a .csv file")
    return {}


def _read_text(file: Path, faults: list[str]) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        faults.append(f"{file}: no such file")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{file}: cannot be read as UTF-8 text: {error}")
    return ""


def _read_table(path: Path, faults: list[str]) -> list[_Entry]:
    entries = []
    reader = csv.reader(io.StringIO(_read_text(path, faults), newline=""), strict=True)
    try:
        for number, row in enumerate(reader):
            cells = [cell.strip() for cell in row]
            if not any(cells) or (number == 0 and cells[0].lower() in _HEADERS):
                continue
            if len(cells) != 2 or cells[1].lower() not in _PURPOSES:
                faults.append(
                    f"{path.name}, line {reader.line_num}: is {','.join(row)!r}, should be a subject and one of "
                    "Training, Validation, Inference"
                )
            else:
                entries.append(_Entry(path, reader.line_num, cells[0], _PURPOSES[cells[1].lower()]))
    except csv.Error as error:
        faults.append(f"{path.name}, line {reader.line_num}: is no CSV: {error}")
    return entries


def _match(entries: Iterable[_Entry], names: Sequence[str], faults: list[str]) -> dict[str, list[str]]:
    """The subjects of each part, in the names at hand."""
    at_hand = NamesAtHand(names)
    parts: dict[str, list[str]] = {part: [] for part in _PARTS}
    first: dict[str, _Entry] = {}
    for entry in entries:
        where = f"{entry.file.name}, line {entry.line}: {entry.name}"
        candidates = at_hand.find(entry.name)
        if not candidates:
            faults.append(f"{where} is no subject of this data set")
        elif len(candidates) > 1:
            faults.append(f"{where} could be {' or '.join(sorted(candidates))}")
        elif candidates[0] in first:
            earlier = first[candidates[0]]
            faults.append(f"{where} is there already, in {earlier.file.name}, line {earlier.line}")
        else:
            first[candidates[0]] = entry
            parts[entry.part].append(candidates[0])
    return parts


class NamesAtHand:
    """Finds subjects by a list's names for them, which may have or lack the grade.

    Args:
        names: of the subjects at hand.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_bare_name: dict[str, list[str]] = {}
        for name in names:
            self._by_bare_name.setdefault(_split_grade(name)[1], []).append(name)

    def find(self, listed: str) -> list[str]:
        """The names at hand of all subjects that may be meant."""
        grade, bare_name = _split_grade(listed)
        return [name for name in self._by_bare_name.get(bare_name, []) if _may_be(grade, _split_grade(name)[0])]


def _split_grade(name: str) -> tuple[str | None, str]:
    """Grade, as HGG or LGG, and the name without it."""
    matched = _GRADE_PREFIX.match(name)
    return (f"{matched[1][:2]}G", name[matched.end() :]) if matched else (None, name)


def _may_be(listed: str | None, known: str | None) -> bool:
    return listed is None or known is None or listed == known
