"""What the slice viewer of a report shows, as values that fit into the page."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gss_train.data import MODALITIES, Dataset, subset_name
from gss_train.evaluation import SegmentedSubject
from gss_train.report.figures.style import CATEGORY_COLOURS

_SCAN_QUALITY = 60

Bytes = npt.NDArray[np.uint8]
ShownRun = tuple[str, Dataset, Sequence[Sequence[bool]], Sequence[SegmentedSubject]]


def viewer_data(runs: Sequence[ShownRun], most_subjects: int) -> dict[str, Any]:
    """Encode subjects for `viewer.js`.

    Every volume becomes one picture, its axial slices side by side: scans as lossy WebP, labels as PNG whose grey
    values are category indices. Predictions are those from each modality alone and from all four, to keep the page
    small. A subject's scans and truth are stored once for all runs.

    Args:
        runs: label, data set, subsets and subjects of each run.
        most_subjects: of the page, the first by name.

    Returns:
        JSON values: "runs", their labels, and "subjects".
    """
    names = sorted({subject.name for _, _, _, subjects in runs for subject in subjects})[:most_subjects]
    return {"runs": [label for label, *_ in runs], "subjects": [_subject(name, runs) for name in names]}


def _subject(name: str, runs: Sequence[ShownRun]) -> dict[str, Any]:
    having = [
        (label, dataset, subsets, subject)
        for label, dataset, subsets, subjects in runs
        for subject in subjects
        if subject.name == name
    ]
    _, dataset, _, first = having[0]
    tumour = (first.truth > 0).sum(axis=(0, 1))
    colours = CATEGORY_COLOURS[1:]
    return {
        "name": name,
        "shape": list(first.truth.shape),
        "spacing": first.spacing.tolist(),
        "columns": _columns(first.truth.shape[2]),
        "start": int(tumour.argmax()) if tumour.any() else first.truth.shape[2] // 2,
        "categories": [
            {"name": category, "colour": colours[number % len(colours)]}
            for number, category in enumerate(dataset.categories[1:])
        ],
        "scans": [
            {"name": modality, "image": _scan(volume) if exists else None}
            for modality, volume, exists in zip(MODALITIES, first.image, first.available.tolist(), strict=True)
        ],
        "truth": _labels(first.truth),
        # Of runs that segment the same voxels into the same categories.
        "predictions": {
            label: _predictions(subject, subsets)
            for label, other, subsets, subject in having
            if subject.truth.shape == first.truth.shape and other.categories == dataset.categories
        },
    }


def _predictions(subject: SegmentedSubject, subsets: Sequence[Sequence[bool]]) -> dict[str, str]:
    """By the subset's name; those of which the subject lacks a scan are left out."""
    return {
        subset_name(subset): _labels(labels)
        for subset, labels in zip(subsets, subject.predictions, strict=True)
        if sum(subset) in {1, len(MODALITIES)}
        and all(exists or not wanted for exists, wanted in zip(subject.available.tolist(), subset, strict=True))
    }


def _columns(slices: int) -> int:
    return math.ceil(math.sqrt(slices))


def _sheet(volume: Bytes) -> Bytes:
    """All axial slices `[x, y]` of a volume in rows and columns, faces upwards."""
    width, depth, slices = volume.shape
    columns = _columns(slices)
    rows = math.ceil(slices / columns)
    sheet = np.zeros((rows * depth, columns * width), np.uint8)
    for level in range(slices):
        top, left = level // columns * depth, level % columns * width
        sheet[top : top + depth, left : left + width] = volume[:, :, level].T
    return sheet


def _scan(volume: Bytes) -> str:
    return _uri(volume, "webp", quality=_SCAN_QUALITY, method=4)


def _labels(volume: Bytes) -> str:
    return _uri(volume, "png", optimize=True)


def _uri(volume: Bytes, kind: str, **options: Any) -> str:
    content = BytesIO()
    Image.fromarray(_sheet(volume)).save(content, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
