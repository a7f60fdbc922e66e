"""The averages that papers publish, and which scores may stand beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from gss_train.data import MODALITY_SUBSETS, Dataset, PublishedSplit, Split, published_splits, same_subjects
from gss_train.evaluation.metrics import MEASURES, SCORES
from gss_train.evaluation.subset_scores import Evaluation


@dataclass(frozen=True)
class PublishedScore:
    """The mean Dice of a network over the 15 subsets of the modalities, as a paper has it.

    Attributes:
        network: that it is of.
        dice: of WT, TC and ET, from 0 to 1; whether the ET is post-processed is not known here.
        source: the paper.
        digits: after the point of the paper's per cent.
    """

    network: str
    dice: tuple[float, float, float]
    source: str
    digits: int = 2


def published_scores(dataset: str) -> tuple[PublishedScore, ...]:
    """Those on the published test subjects of a data set."""
    return _SCORES.get(dataset, ())


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table that has published averages beside one's own.

    Attributes:
        network: that it is of.
        cells: of WT, TC and ET: the published mean, and the own one minus it, as texts.
        source: the paper.
    """

    network: str
    cells: list[tuple[str, str]]
    source: str


def published_rows(dataset: str, own: Sequence[float]) -> list[PublishedRow]:
    """The published averages of a data set beside one's own means of WT, TC and ET, from 0 to 1."""
    show = MEASURES["dice"].show
    return [
        PublishedRow(
            score.network,
            [
                (show(theirs, score.digits), show(mine - theirs, score.digits, signed=True))
                for theirs, mine in zip(score.dice, own[: len(score.dice)], strict=True)
            ],
            score.source,
        )
        for score in published_scores(dataset)
    ]


def published_remark(evaluation: Evaluation) -> str:
    """What has to be known where published averages are shown beside scores."""
    unknown = "" if evaluation.settings.get("trained_as_published") else _UNKNOWN_TRAINING
    return " ".join(filter(None, [_DIFFERENCES, _CAVEATS.get(evaluation.dataset.name, ""), unknown]))


def split_settings(
    dataset: Dataset, split: Split | None, training_subjects: Collection[str], *, is_stated: bool = False
) -> dict[str, Any]:
    """What an evaluation's settings say of the split that its subjects are a part of.

    Args:
        dataset: of the subjects.
        split: None for all subjects.
        training_subjects: all that the network was trained on; empty where that is not known.
        is_stated: whether the user names the split.

    Returns:
        "split", the split's name; for a published one "trained_as_published": whether the network was trained on all
        of its training subjects and no others, None where that is not known and the user answers for it. Nothing
        without a name.
    """
    if split is None or not split.name:
        return {}
    published = published_splits(dataset.name).get(split.name)
    if published is None:
        return {"split": split.name}
    as_published = same_subjects(published.listed.train, training_subjects) if training_subjects else None
    return {"split": split.name, "trained_as_published": as_published if training_subjects or is_stated else False}


def comparable_split(evaluation: Evaluation) -> PublishedSplit | None:
    """The published split on which scores are comparable with published averages; None: they are not.

    They are if they are of all its test subjects and no others, from all 15 subsets of the modalities, on voxels of
    1 mm that were not resampled, by a network that was trained on its training subjects, or, where these are not known,
    if the user names the split.
    """
    settings, scores = evaluation.settings, evaluation.scores
    published = published_splits(evaluation.dataset.name).get(settings.get("split", ""))
    if published is None or settings.get("trained_as_published", False) is False or settings.get("part") != "test":
        return None
    # There is an ET post-processed if all voxels have 1 mm.
    whole = settings.get("spacing") is None and scores.names == SCORES and scores.subsets == MODALITY_SUBSETS
    return published if whole and same_subjects(published.listed.test, scores.subjects) else None


def _of_paper(
    source: str, scores: dict[str, tuple[float, float, float]], digits: int = 2
) -> tuple[PublishedScore, ...]:
    """From per cent."""
    return tuple(
        PublishedScore(network, (whole / 100, core / 100, enhancing / 100), source, digits)
        for network, (whole, core, enhancing) in scores.items()
    )


_RFNET = "RFNet's paper (ICCV 2021)"
_DEMOSEG = "DeMoSeg's paper (arXiv 2408.08708)"
_SCORES = {
    "brats2015": (
        *_of_paper(
            _RFNET,
            {"U-HVED": (81.57, 64.68, 56.76), "RobustSeg": (84.45, 69.19, 57.33), "RFNet": (86.13, 71.93, 64.13)},
        ),
        *_of_paper(_DEMOSEG, {"RFNet + GSS": (87.59, 74.16, 66.92), "DeMoSeg": (88.96, 75.88, 66.17)}),
    ),
    "brats2018": (
        *_of_paper(
            _RFNET,
            {"U-HVED": (80.10, 64.00, 50.00), "RobustSeg": (84.37, 69.78, 51.02), "RFNet": (85.67, 76.53, 57.12)},
        ),
        *_of_paper(_DEMOSEG, {"RFNet + GSS": (87.20, 78.25, 63.49), "DeMoSeg": (87.96, 79.79, 64.90)}),
    ),
    "brats2020": (
        *_of_paper(
            _RFNET,
            {"U-HVED": (81.24, 67.19, 48.55), "RobustSeg": (84.17, 73.45, 55.49), "RFNet": (86.98, 78.23, 61.47)},
        ),
        *_of_paper(_DEMOSEG, {"RFNet + GSS": (88.09, 79.24, 66.42), "DeMoSeg": (88.90, 81.58, 69.71)}),
    ),
    "brats2023": _of_paper(
        "IM-Fuse's paper", {"IM-Fuse": (90.2, 85.5, 74.3), "mmFormer": (90.0, 84.7, 73.6)}, digits=1
    ),
}
_DIFFERENCES = "Differences: own minus published, in points, of ET as predicted; a published ET is as its paper has it."
_UNKNOWN_TRAINING = (
    "Which subjects this network was trained on is not known: RFNet's authors have a checkpoint for each list, "
    "mmFormer's trained on two thirds of all subjects of BraTS2018, which no list is."
)
_CAVEATS = {
    "brats2018": "The averages of RFNet's paper are over its three published splits, these scores are of one of them."
}
