"""What is wrong with raw files, where, and what to do about it."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]

_MIN_TEXT_WIDTH = 48


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with the raw files.

    Attributes:
        subject: its name.
        file: where it is; None when it is about the subject as a whole.
        problem: what is wrong, in one sentence.
        remedy: what to do about it.
        severity: an error makes the subject unusable, a warning leaves it to the reader.
    """

    subject: str
    file: Path | None
    problem: str
    remedy: str
    severity: Severity = "error"

    def to_json(self) -> dict[str, str | None]:
        """The fields as JSON values."""
        return {**vars(self), "file": None if self.file is None else str(self.file)}


def bad_subjects(faults: Sequence[Fault], severity: Severity = "error") -> list[str]:
    """The subjects that have errors, or warnings, each once."""
    return list(dict.fromkeys(fault.subject for fault in faults if fault.severity == severity))


def describe_faults(faults: Sequence[Fault], width: int | None = None) -> str:
    """Lists faults for people, errors first: a table of subject, file, and problem with its remedy.

    Args:
        faults: one or more.
        width: characters in a line; by default those of the terminal, or 160 elsewhere.
    """
    files = [fault.file.absolute() for fault in faults if fault.file is not None]
    folder = Path(os.path.commonpath([path.parent for path in files])) if files else None
    rows = [("subject", "file", ["problem, and -> remedy"])]
    for fault in sorted(faults, key=lambda fault: (fault.severity, fault.subject)):
        place = "-" if fault.file is None or folder is None else str(fault.file.absolute().relative_to(folder))
        rows.append((fault.subject, place, [f"{fault.severity}: {fault.problem}", f"-> {fault.remedy}"]))
    first, second = (max(len(row[column]) for row in rows) + 2 for column in (0, 1))
    width = shutil.get_terminal_size((160, 24)).columns if width is None else width
    wrap = textwrap.TextWrapper(
        max(width - first - second, _MIN_TEXT_WIDTH),
        subsequent_indent="   ",
        break_long_words=False,
        break_on_hyphens=False,
    ).wrap
    lines = [f"Files in {folder}"] if folder else []
    for subject, place, texts in rows:
        start, *others = [line for text in texts for line in wrap(text)]
        lines.append(f"{subject:{first}}{place:{second}}{start}")
        lines += [" " * (first + second) + line for line in others]
    return "\n".join(lines)
