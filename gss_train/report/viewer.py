"""What the slice viewer of a report shows, as values that fit into the page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gss_train.data import MODALITIES, subset_name
from gss_train.evaluation import SegmentedSubject
from gss_train.report.figures.slices import level_with_most_tumour
from gss_train.report.figures.style import category_colours
from gss_train.report.runs import ReportedRun

_SCAN_QUALITY = 60

Bytes = npt.NDArray[np.uint8]


def viewer_data(runs: Mapping[str, ReportedRun], most_subjects: int) -> dict[str, Any]:
    """Encode subjects for `viewer.js`.

    Every volume becomes one picture, its axial slices side by side: scans as lossy WebP, labels as PNG whose grey
    values are category indices. Predictions are those from each modality alone and from all four, to keep the page
    small. A subject's scans and truth are stored once for all runs.

    Args:
        runs: with subjects to look at, by what they are called on the page.
        most_subjects: of the page, the first by name.

    Returns:
        JSON values: "runs", their labels, and "subjects".
    """
    names = sorted({subject.name for run in runs.values() for subject in run.segmented})[:most_subjects]
    return {"runs": list(runs), "subjects": [_subject(name, runs) for name in names]}


def _subject(name: str, runs: Mapping[str, ReportedRun]) -> dict[str, Any]:
    having = [
        (label, run.evaluation, subject)
        for label, run in runs.items()
        for subject in run.segmented
        if subject.name == name
    ]
    _, evaluation, first = having[0]
    categories = evaluation.dataset.categories
    named = list(zip(categories, category_colours(evaluation.dataset), strict=True))
    return {
        "name": name,
        "shape": list(first.truth.shape),
        "spacing": first.spacing.tolist(),
        "columns": _columns(first.truth.shape[2]),
        "start": level_with_most_tumour(first.truth),
        "categories": [{"name": category, "colour": colour} for category, colour in named[1:]],
        "scans": [
            {"name": modality, "image": _uri(volume, "webp", quality=_SCAN_QUALITY, method=4) if exists else None}
            for modality, volume, exists in zip(MODALITIES, first.image, first.available.tolist(), strict=True)
        ],
        "truth": _labels(first.truth),
        # Of runs that segment the same voxels into the same categories.
        "predictions": {
            label: _predictions(subject, other.scores.subsets)
            for label, other, subject in having
            if subject.truth.shape == first.truth.shape and other.dataset.categories == categories
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


def _labels(volume: Bytes) -> str:
    return _uri(volume, "png", optimize=True)


def _uri(volume: Bytes, kind: str, **options: Any) -> str:
    content = BytesIO()
    Image.fromarray(_sheet(volume)).save(content, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
