"""The tables of an evaluation in the papers' layout: a row for each region, a column for each subset, the mean last."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from gss_train.data import MODALITIES, subset_name
from gss_train.evaluation.subset_scores import SubsetScores

TITLES = {
    "dice": "Dice (%)",
    "hd95_mm": "95th percentile of the Hausdorff distance (mm)",
    "sensitivity": "Sensitivity (%)",
    "precision": "Precision (%)",
}
_INTERVALS = "95 % intervals over subjects"
_UNSCALED = {"hd95_mm"}

Intervals = Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]


def paper_markdown(scores: SubsetScores, intervals: Intervals) -> str:
    """A section for each measure: means over the subjects, and their 95 % intervals.

    Args:
        scores: of the subjects.
        intervals: for each measure lower and upper ends, `[subsets + 1, names]` each.
    """
    sections = []
    for measure in scores.measures:
        means = _format(_means(scores, measure), measure)
        low, high = (_format(ends, measure) for ends in intervals[measure])
        ranges = [[f"{a} to {b}" for a, b in zip(*rows, strict=True)] for rows in zip(low, high, strict=True)]
        title = TITLES[measure]
        sections += [f"## {title}", _markdown(scores, means), f"### {title}: {_INTERVALS}", _markdown(scores, ranges)]
    return "\n\n".join(sections) + "\n"


def paper_csv(scores: SubsetScores) -> str:
    """A row for each measure and region; Dice, sensitivity and precision from 0 to 1, distances in mm."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("measure", "region", *map(subset_name, scores.subsets), "mean"))
    for measure in scores.measures:
        for name, values in zip(scores.names, _means(scores, measure).T.tolist(), strict=True):
            writer.writerow((measure, name, *_fractions(values)))
    return text.getvalue()


def subjects_csv(scores: SubsetScores) -> str:
    """A row for each subject and subset, a column for each measure and region; empty where the subject lacks a scan."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{measure} {name}" for measure in scores.measures for name in scores.names]
    writer.writerow(("subject", "modalities", *columns))
    for number, subject in enumerate(scores.subjects):
        for place, subset in enumerate(scores.subsets):
            values = [value for table in scores.measures.values() for value in table[number, place].tolist()]
            writer.writerow((subject, subset_name(subset), *_fractions(values)))
    return text.getvalue()


def _means(scores: SubsetScores, measure: str) -> npt.NDArray[np.float64]:
    """Means over the subjects `[subsets + 1, names]`, the last row over the subsets too."""
    means: npt.NDArray[np.float64] = torch.cat([scores.mean_of(measure), scores.overall_of(measure)[None]]).numpy()
    return means


def _format(values: npt.NDArray[np.float64], measure: str) -> list[list[str]]:
    """Texts by region, then by subset."""
    scale = 1 if measure in _UNSCALED else 100
    return [["-" if math.isnan(v) else f"{scale * v:.2f}" for v in row] for row in values.T.tolist()]


def _markdown(scores: SubsetScores, cells: list[list[str]]) -> str:
    """A filled circle marks a modality that the network was given."""
    circles = [["●" if subset[number] else "○" for subset in scores.subsets] for number in range(len(MODALITIES))]
    first, *rest = ([name, *row, ""] for name, row in zip(MODALITIES, circles, strict=True))
    lines = [[*first[:-1], "mean"], [":---", *["---:"] * (len(scores.subsets) + 1)], *rest]
    lines += [[name, *row] for name, row in zip(scores.names, cells, strict=True)]
    return "\n".join(_row(line) for line in lines)


def _fractions(values: Iterable[float]) -> list[str]:
    return ["" if math.isnan(value) else f"{value:.6f}" for value in values]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
