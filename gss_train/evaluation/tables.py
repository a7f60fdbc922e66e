"""Tables of scores by subset of the modalities: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gss_train.data import MODALITIES, subset_name
from gss_train.evaluation.metrics import MEASURES
from gss_train.evaluation.subset_scores import SubsetScores, with_mean_over_subsets

_CIRCLES = {True: "●", False: "○"}

Ends = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Table:
    """Texts and numbers.

    Attributes:
        columns: their titles.
        rows: of a cell for each column; NaN is a number that nobody knows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]

    def to_csv(self) -> str:
        """Numbers as they are; nothing for NaN."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(
            [cell if isinstance(cell, str) else "" if math.isnan(cell) else f"{cell:.6f}" for cell in row]
            for row in self.rows
        )
        return text.getvalue()

    def to_markdown(self, measure: str, rules: Iterable[str]) -> str:
        """Numbers as the measure shows them, a dash for NaN; a rule such as `---:` says how a column is aligned."""
        show = MEASURES[measure].show
        rows = [[cell if isinstance(cell, str) else show(cell, 2) for cell in row] for row in self.rows]
        return "".join(f"| {' | '.join(row)} |\n" for row in (self.columns, rules, *rows))


def dice_markdown(scores: SubsetScores) -> str:
    """Mean Dice: a row for each subset, whose modalities have a filled circle, and one for their mean."""
    labels = [*([_CIRCLES[flag] for flag in subset] for subset in scores.subsets), ["mean", *[""] * 3]]
    rows = [[*label, *values] for label, values in zip(labels, scores.means_of("dice").tolist(), strict=True)]
    rules = (*[":---:"] * len(MODALITIES), *["---:"] * len(scores.names))
    return Table((*MODALITIES, *scores.names), rows).to_markdown("dice", rules)


def dice_csv(scores: SubsetScores) -> str:
    """Dice of every subject and subset as a number from 0 to 1, with means over subjects and over subsets."""
    subsets = (*map(subset_name, scores.subsets), "mean")
    by_name = (*zip(scores.subjects, scores.dice, strict=True), ("mean", scores.mean))
    rows = [
        [name, subset, *values]
        for name, by_subset in by_name
        for subset, values in zip(subsets, with_mean_over_subsets(by_subset).tolist(), strict=True)
    ]
    return Table(("subject", "modalities", *(f"{name} (0 to 1)" for name in scores.names)), rows).to_csv()


def paper_markdown(scores: SubsetScores, intervals: Mapping[str, Ends]) -> str:
    """In the papers' layout, a section for each measure: means over the subjects, and their 95 % intervals.

    Args:
        scores: of the subjects.
        intervals: for each measure lower and upper ends, `[subsets + 1, names]` each.
    """
    sections = []
    for measure in scores.measures:
        title, show = MEASURES[measure].title, MEASURES[measure].show
        low, high = (ends.T.tolist() for ends in intervals[measure])
        ranges = [
            [f"{show(a, 2)} to {show(b, 2)}" for a, b in zip(*rows, strict=True)]
            for rows in zip(low, high, strict=True)
        ]
        sections += [
            f"## {title}\n\n{_paper_table(scores, measure, scores.means_of(measure).T.tolist())}",
            f"### {title}: 95 % intervals over subjects\n\n{_paper_table(scores, measure, ranges)}",
        ]
    return "\n".join(sections)


def _paper_table(scores: SubsetScores, measure: str, cells: Sequence[Sequence[str | float]]) -> str:
    """A row for each region, a column for each subset, whose modalities have a filled circle; the mean last."""
    circles = zip(*([_CIRCLES[flag] for flag in subset] for subset in scores.subsets), strict=True)
    first, *others = ([name, *row] for name, row in zip(MODALITIES, circles, strict=True))
    rows = [*([*row, ""] for row in others), *([name, *row] for name, row in zip(scores.names, cells, strict=True))]
    return Table([*first, "mean"], rows).to_markdown(measure, (":---", *["---:"] * (len(scores.subsets) + 1)))


def paper_csv(scores: SubsetScores) -> str:
    """The means in the papers' layout: a row for each measure and region, a column for each subset, the mean last."""
    rows = [
        [measure, name, *values]
        for measure in scores.measures
        for name, values in zip(scores.names, scores.means_of(measure).T.tolist(), strict=True)
    ]
    return Table(("measure", "region", *map(subset_name, scores.subsets), "mean"), rows).to_csv()


def subjects_csv(scores: SubsetScores) -> str:
    """A row for each subject and subset, a column for each measure and region."""
    columns = [f"{measure} {name}" for measure in scores.measures for name in scores.names]
    every = torch.cat(list(scores.measures.values()), dim=-1).tolist()
    rows = [
        [subject, subset_name(subset), *values]
        for subject, table in zip(scores.subjects, every, strict=True)
        for subset, values in zip(scores.subsets, table, strict=True)
    ]
    return Table(("subject", "modalities", *columns), rows).to_csv()
