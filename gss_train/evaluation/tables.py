"""The table of scores by modality subset, as Markdown and CSV; a dash, or nothing, where no subject has the scans."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable

from gss_train.data import MODALITIES, subset_name
from gss_train.evaluation.subset_scores import SubsetScores


def markdown_table(scores: SubsetScores) -> str:
    """Mean Dice in per cent; a filled circle marks a modality that the network was given."""
    header = (*MODALITIES, *scores.names)
    lines = [_row(header), _row(":---:" if name in MODALITIES else "---:" for name in header)]
    for subset, values in zip(scores.subsets, scores.mean.tolist(), strict=True):
        lines.append(_row([*("●" if flag else "○" for flag in subset), *_percent(values)]))
    lines.append(_row(["mean", *[""] * (len(MODALITIES) - 1), *_percent(scores.overall.tolist())]))
    return "\n".join(lines) + "\n"


def csv_table(scores: SubsetScores) -> str:
    """Dice of every subject and subset as a number from 0 to 1, with means over subjects and over subsets."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("subject", "modalities", *(f"{name} (0 to 1)" for name in scores.names)))
    for name, by_subset in (*zip(scores.subjects, scores.dice, strict=True), ("mean", scores.mean)):
        for subset, values in zip(scores.subsets, by_subset.tolist(), strict=True):
            writer.writerow((name, subset_name(subset), *_fractions(values)))
        writer.writerow((name, "mean", *_fractions(by_subset.nanmean(dim=0).tolist())))
    return text.getvalue()


def _fractions(values: list[float]) -> list[str]:
    return ["" if math.isnan(value) else f"{value:.6f}" for value in values]


def _percent(values: list[float]) -> list[str]:
    return ["-" if math.isnan(value) else f"{100 * value:.2f}" for value in values]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
