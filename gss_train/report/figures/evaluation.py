"""All figures of one evaluation, or of several that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gss_train.common import UserError
from gss_train.evaluation import Evaluation, SegmentedSubject
from gss_train.report.figures.scores import save_bars, save_heat_map
from gss_train.report.figures.slices import save_panels


def save_evaluation_figures(
    folder: Path, runs: Mapping[str, Evaluation], segmented: Mapping[str, Sequence[SegmentedSubject]]
) -> list[Path]:
    """Draw heat maps of every measure that all runs have, bars of their Dice, and panels of the first run's subjects.

    Args:
        folder: for the figures; made when missing.
        runs: evaluations by the run's name, one at least, of the same regions and subsets.
        segmented: subjects to look at, by the run's name.

    Returns:
        The PNG files; beside each is an SVG.

    Raises:
        UserError: the runs have different regions or subsets.
        OSError: a file cannot be written; the message names it.
    """
    name_of_first, first = next(iter(runs.items()))
    for name, evaluation in runs.items():
        same = (evaluation.scores.names, evaluation.scores.subsets) == (first.scores.names, first.scores.subsets)
        if not same or evaluation.dataset.categories != first.dataset.categories:
            raise UserError(f"{name}: has other regions, subsets or categories than {first.name}; draw them apart")
    scores = {name: evaluation.scores for name, evaluation in runs.items()}
    stems = []
    for measure in first.scores.measures:
        if all(measure in table.measures for table in scores.values()):
            stems.append(folder / f"heat-map-{measure.replace('_', '-')}")
            save_heat_map(stems[-1], scores, measure)
    stems.append(folder / "bars-dice")
    save_bars(stems[-1], scores)
    for subject in segmented[name_of_first]:
        predictions = {
            name: other.predictions
            for name, subjects in segmented.items()
            for other in subjects
            if other.name == subject.name and other.truth.shape == subject.truth.shape
        }
        stems.append(folder / f"panels-{subject.name}")
        save_panels(stems[-1], subject, first.dataset, first.scores.subsets, predictions)
    return [stem.with_name(f"{stem.name}.png") for stem in stems]
