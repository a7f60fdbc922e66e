"""Real scans, which are no part of the project: found in the folder that GSS_REAL_SCANS names, and never written to.

Tests name none of them and hold no number of any: what they expect they compute from the files, by nibabel alone.
Where it is set they run: a folder in which nothing is found is an error, as what finds subjects is ours too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gss_train.data import DATASETS, Subject, find_subjects
from gss_train.data.datasets import LABEL

_ROLES = {
    **dict.fromkeys(("flair", "fla", "t2f"), "FLAIR"),
    **dict.fromkeys(("t1ce", "t1c"), "T1ce"),
    **dict.fromkeys(("t1", "t1n"), "T1"),
    **dict.fromkeys(("t2", "t2w"), "T2"),
    "seg": LABEL,
}
# So many are tried on every change, the others by `-m exhaustive`.
_EVERY_DAY = 1

DATASET = DATASETS["brats2018"]
NOT_SET = "GSS_REAL_SCANS is not set, which would name a folder of real scans"
_NO_ODD_CASES = "the folder that GSS_REAL_SCANS names has no folder 'odd', whose folders would hold a case each"


class RealSubject(Subject):
    """Does not say whose scans it has, where a test that fails shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "a real subject"


def _folder() -> Path | None:
    named = os.environ.get("GSS_REAL_SCANS")
    return Path(named) if named else None


def _parameters(found: list[Any], every_day: int, none: str) -> list[Any]:
    """Numbered, as their names stay out of everything that is printed; without any, why the test is skipped."""
    if not found:
        return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=none))]
    return [
        pytest.param(item, id=str(number), marks=pytest.mark.exhaustive if number >= every_day else ())
        for number, item in enumerate(found)
    ]


def real_subjects() -> list[Subject]:
    """All with usual names, at any depth; none where no folder is named.

    Raises:
        LayoutError: a folder is named that is not there, or has none.
    """
    folder = _folder()
    found = [] if folder is None else find_subjects(folder, DATASET)
    return [RealSubject(**vars(subject)) for subject in found]


def _odd_cases() -> list[Subject]:
    """What else reaches users: a subject for each folder that has no usual name."""
    folder = _folder()
    if folder is None or not (folder / "odd").is_dir():
        return []
    cases = []
    for case in sorted((folder / "odd").iterdir()):
        words = {path: re.split(r"[-_.]", path.name) for path in sorted(case.iterdir())}
        files = {_ROLES[word]: path for path, parts in words.items() for word in parts if word in _ROLES}
        label = files.pop(LABEL, None)
        cases.append(RealSubject("case", None, files, label))
    return cases


each_subject = pytest.mark.parametrize("subject", _parameters(real_subjects(), _EVERY_DAY, NOT_SET))
"""A test for each real subject, a few of them on every change."""

each_odd_case = pytest.mark.parametrize(
    "case", _parameters(_odd_cases(), 100, NOT_SET if _folder() is None else _NO_ODD_CASES)
)


def voxels_of(path: Path) -> np.ndarray:
    """A file's voxels, the axes to the left, back and top: read by nibabel alone."""
    image = nib.as_closest_canonical(nib.load(path))
    return np.asarray(image.dataobj)[::-1, ::-1]
