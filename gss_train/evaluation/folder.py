"""The folder of an evaluation: scores, tables, some subjects to look at; written completely or not at all."""

from __future__ import annotations

import json
import math
import shutil
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gss_train.common import UserError, open_replacing
from gss_train.data import MODALITIES, MODALITY_SUBSETS, Dataset, PreparedSubject, subset_name
from gss_train.evaluation.intervals import interval_of
from gss_train.evaluation.metrics import MEASURES
from gss_train.evaluation.subset_scores import Evaluation, SubsetScores
from gss_train.evaluation.summary import origin_markdown
from gss_train.evaluation.tables import paper_csv, paper_markdown, subjects_csv

_VERSION = 1
_SCORES, _SUBJECTS, FIGURES = "scores.json", "subjects", "figures"
_FILES, _FOLDERS = (_SCORES, "subjects.csv", "table.csv", "table.md"), (_SUBJECTS, FIGURES)
_BY_NAME = {subset_name(subset): subset for subset in MODALITY_SUBSETS}
# Of the intensities in the brain; what lies beyond is shown like them.
_DARKEST_PERCENT, _BRIGHTEST_PERCENT = 0.5, 99.5

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SegmentedSubject:
    """A subject to look at.

    Attributes:
        name: of the subject.
        image: `[4, D, H, W]` uint8; 0 is background, 1 to 255 the intensities in the brain.
        available: `[4]` bool, whether there is a scan.
        truth: category indices `[D, H, W]` uint8.
        predictions: likewise `[S, D, H, W]`, from each subset of the evaluation.
        spacing: `[3]` float64, millimetres from voxel to voxel.
    """

    name: str
    image: Bytes
    available: npt.NDArray[np.bool_]
    truth: Bytes
    predictions: Bytes
    spacing: npt.NDArray[np.float64]


def is_evaluation(folder: Path) -> bool:
    """Whether there is a complete evaluation in a folder."""
    return (folder / _SCORES).exists()


def unfinished_folder(path: Path) -> Path:
    """Where an evaluation lies that is to take the place of `path` once it is complete."""
    path = path.resolve()
    return path.with_name(f".{path.name}.unfinished")


def refuse_taken(path: Path) -> None:
    """Refuse a path at which there is something else, so that nothing is overwritten but an earlier evaluation.

    Raises:
        UserError: it is a file, or a folder with something else.
    """
    if not path.exists() or (path.is_dir() and (is_evaluation(path) or not any(path.iterdir()))):
        return
    # Of one that was killed while it took its place.
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else {""}
    if not (names <= {*_FILES, *_FOLDERS} and unfinished_folder(path).exists()):
        raise UserError(f"--output: {path} exists and is not an empty folder or an evaluation; name another one")


def replace_evaluation(path: Path, complete: Path) -> None:
    """The files of a complete evaluation, in a folder beside `path`, take the place of an earlier one's.

    Raises:
        OSError: a file cannot be written or removed; the message names it.
    """
    path.mkdir(exist_ok=True)
    # The first to go and the last to come: without it the folder is no evaluation.
    for name in _FILES:
        (path / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        if (path / name).exists():
            shutil.rmtree(path / name)
    for name in (*_FOLDERS, *reversed(_FILES)):
        if (complete / name).exists():
            (complete / name).replace(path / name)


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write `scores.json`, `subjects.csv`, `table.csv` and `table.md`, each completely or not at all, scores last.

    Raises:
        OSError: a file cannot be written; the message names it.
    """
    scores = evaluation.scores
    intervals = {measure: interval_of(scores, measure) for measure in scores.measures}
    content = {
        "version": _VERSION,
        "name": evaluation.name,
        "fingerprint": evaluation.fingerprint,
        "dataset": evaluation.dataset.to_json(),
        "settings": dict(evaluation.settings),
        "regions": list(scores.names),
        "subsets": [subset_name(subset) for subset in scores.subsets],
        "subjects": list(scores.subjects),
        "measures": {
            measure: {
                "unit": MEASURES[measure].unit,
                "values": _numbers(values.tolist()),
                "mean": _numbers(scores.means_of(measure).tolist()),
                "low": _numbers(intervals[measure][0].tolist()),
                "high": _numbers(intervals[measure][1].tolist()),
            }
            for measure, values in scores.measures.items()
        },
    }
    _write(folder / "subjects.csv", subjects_csv(scores))
    _write(folder / "table.csv", paper_csv(scores))
    _write(folder / "table.md", f"{origin_markdown(evaluation)}\n{paper_markdown(scores, intervals)}")
    _write(folder / _SCORES, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_evaluation(folder: Path) -> Evaluation:
    """Read what `write_evaluation` wrote.

    Raises:
        UserError: `scores.json` is missing or cannot be understood; the message names it.
    """
    path = folder / _SCORES
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != _VERSION:
            raise ValueError(f"version is {content['version']!r}, should be {_VERSION}")  # noqa: TRY301
        subjects, names = tuple(content["subjects"]), tuple(content["regions"])
        subsets = tuple(_BY_NAME[name] for name in content["subsets"])
        measures = {}
        for measure, table in content["measures"].items():
            values = np.array(table["values"], np.float64).reshape(len(subjects), len(subsets), len(names))
            measures[measure] = torch.from_numpy(values)
        scores = SubsetScores(subjects, names, measures, subsets)
        if not subjects or "dice" not in measures:
            raise ValueError("it has no subjects, or no Dice")  # noqa: TRY301
        return Evaluation(
            str(content["name"]),
            Dataset.from_json(content["dataset"]),
            scores,
            dict(content["settings"]),
            str(content.get("fingerprint", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read, need the scores of `python -m gss_train.evaluate`: {error}"
        ) from error


def write_segmented(folder: Path, subject: PreparedSubject, image: Tensor, truth: Tensor, predictions: Tensor) -> None:
    """Write a subject to look at, to `subjects/<name>.npz` of an evaluation's folder.

    Args:
        folder: of the evaluation.
        subject: that it is.
        image: z-scores `[4, D, H, W]`.
        truth: category indices `[D, H, W]`.
        predictions: likewise `[S, D, H, W]`, from each subset of the evaluation.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    content = BytesIO()
    np.savez_compressed(
        content,
        image=_to_bytes(image.numpy(), subject),
        available=np.array(subject.available),
        truth=truth.numpy().astype(np.uint8),
        predictions=predictions.numpy().astype(np.uint8),
        spacing=np.array(subject.metadata.spacing, np.float64),
    )
    with open_replacing(segmented_path(folder, subject.name)) as file:
        file.write(content.getbuffer())


def segmented_path(folder: Path, name: str) -> Path:
    """The file of a subject to look at in an evaluation's folder."""
    return folder / _SUBJECTS / f"{name}.npz"


def read_segmented(folder: Path) -> list[SegmentedSubject]:
    """Read the subjects to look at of an evaluation's folder, sorted by name; perhaps none.

    Raises:
        UserError: a file cannot be understood; the message names it.
    """
    return [_read_segmented(path) for path in sorted((folder / _SUBJECTS).glob("*.npz"))]


def _read_segmented(path: Path) -> SegmentedSubject:
    try:
        # NumPy leaves a file open that it does not understand.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        subject = SegmentedSubject(path.name.removesuffix(".npz"), **arrays)
        shape = subject.truth.shape
        fits = subject.image.shape == (len(MODALITIES), *shape) and subject.predictions.shape[1:] == shape
        if len(shape) != 3 or not fits:
            raise ValueError("its volumes do not fit together")  # noqa: TRY301
        if {volume.dtype for volume in (subject.image, subject.truth, subject.predictions)} != {np.dtype(np.uint8)}:
            raise ValueError("its volumes are not of 8-bit numbers")  # noqa: TRY301
    # What NumPy and zipfile raise on files that are cut, altered or not theirs.
    except (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, zlib.error, BadZipFile) as error:
        raise UserError(f"{path}: cannot be read, need a subject of `python -m gss_train.evaluate`: {error}") from error
    return subject


def _to_bytes(image: npt.NDArray[np.float32], subject: PreparedSubject) -> Bytes:
    """Intensities from 1 to 255 in the brain, 0 around it."""
    shown = np.zeros(image.shape, np.uint8)
    for number, (scan, background, exists) in enumerate(zip(image, subject.background, subject.available, strict=True)):
        # The prepared volumes have 16 bits.
        brain = scan != np.float16(background)
        if not exists or not brain.any():
            continue
        darkest, brightest = np.percentile(scan[brain], (_DARKEST_PERCENT, _BRIGHTEST_PERCENT))
        scaled = (scan[brain] - darkest) / max(float(brightest - darkest), 1e-6)
        shown[number][brain] = 1 + np.round(254 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return shown


def _numbers(values: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(values, list):
        return [_numbers(value) for value in values]
    return None if math.isnan(values) else values


def _write(path: Path, text: str) -> None:
    with open_replacing(path) as file:
        file.write(text.encode())
