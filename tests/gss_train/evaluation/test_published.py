"""Published averages stand beside scores of the published test subjects, and beside no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from gss_train.data import DATASETS, MODALITY_SUBSETS, Split, published_splits
from gss_train.evaluation import (
    Evaluation,
    SubsetScores,
    comparable_split,
    describe_origin,
    published_scores,
    split_settings,
    summary_markdown,
)
from gss_train.evaluation.metrics import SCORES
from gss_train.runs import UNNAMED_SUBJECTS
from tests.gss_train.report.made_up import published_evaluation

MINUS = "\N{MINUS SIGN}"
SPLIT = published_splits("brats2020")["published"].listed


def change(evaluation: Evaluation, **settings: Any) -> Evaluation:
    return dataclasses.replace(evaluation, settings={**evaluation.settings, **settings})


def rescored(evaluation: Evaluation, scores: SubsetScores) -> Evaluation:
    return dataclasses.replace(evaluation, scores=scores)


def test_scores_of_the_published_test_subjects_show_published_averages_and_the_difference() -> None:
    evaluation = published_evaluation("brats2020", "published", (0.9, 0.8, 0.6, 0.65))
    assert comparable_split(evaluation) == published_splits("brats2020")["published"]
    text = summary_markdown(evaluation)
    assert "| run (own) | 90.00 | 80.00 | 60.00 | 65.00 |  |\n" in text
    # 86.98, 78.23 and 61.47 are RFNet's.
    assert f"| RFNet | 86.98 (+3.02) | 78.23 (+1.77) | 61.47 ({MINUS}1.47) |  | RFNet's paper (ICCV 2021) |\n" in text
    assert text.count("DeMoSeg's paper") == 2
    assert "a published ET is as its paper has it" in text
    assert "three" not in text


def test_published_averages_beside_a_network_of_unknown_training_say_so() -> None:
    evaluation = change(
        published_evaluation("brats2020", "published", (0.9, 0.8, 0.6, 0.65)), trained_as_published=None
    )
    text = summary_markdown(evaluation)
    assert "| RFNet | 86.98 (+3.02) |" in text
    assert "Which subjects this network was trained on is not known" in text
    assert "not known" not in summary_markdown(change(evaluation, trained_as_published=True))


def test_numbers_have_the_digits_of_their_paper_and_2018_its_caveat() -> None:
    of_2023 = summary_markdown(published_evaluation("brats2023", "published", (0.9, 0.8, 0.7, 0.7)))
    assert f"| mmFormer | 90.0 (+0.0) | 84.7 ({MINUS}4.7) | 73.6 ({MINUS}3.6) |  | IM-Fuse's paper |\n" in of_2023
    of_2018 = summary_markdown(published_evaluation("brats2018", "published-2", (0.9, 0.8, 0.7, 0.7)))
    assert "published split 2 of 3 of BraTS2018" in of_2018
    assert "over its three published splits, these scores are of one of them" in of_2018


def seeded(evaluation: Evaluation) -> Evaluation:
    return change(evaluation, split="seeded, --split-seed 0")


def from_a_file(evaluation: Evaluation) -> Evaluation:
    return change(evaluation, split="--split-file published")


def of_before(evaluation: Evaluation) -> Evaluation:
    added = {"split", "trained_as_published"}
    settings = {name: value for name, value in evaluation.settings.items() if name not in added}
    return dataclasses.replace(evaluation, settings=settings)


def other_training(evaluation: Evaluation) -> Evaluation:
    return change(evaluation, trained_as_published=False)


def other_part(evaluation: Evaluation) -> Evaluation:
    return change(evaluation, part="validation")


def other_voxels(evaluation: Evaluation) -> Evaluation:
    return change(evaluation, spacing=[1.0, 1.0, 1.0])


def other_data(evaluation: Evaluation) -> Evaluation:
    return dataclasses.replace(evaluation, dataset=DATASETS["brats2021"])


def a_subject_less(evaluation: Evaluation) -> Evaluation:
    scores = evaluation.scores
    measures = {name: values[1:] for name, values in scores.measures.items()}
    return rescored(evaluation, dataclasses.replace(scores, subjects=scores.subjects[1:], measures=measures))


def a_subject_changed(evaluation: Evaluation) -> Evaluation:
    scores = evaluation.scores
    return rescored(evaluation, dataclasses.replace(scores, subjects=(SPLIT.train[0], *scores.subjects[1:])))


def a_subset_less(evaluation: Evaluation) -> Evaluation:
    scores = evaluation.scores
    measures = {name: values[:, 1:] for name, values in scores.measures.items()}
    return rescored(evaluation, SubsetScores(scores.subjects, scores.names, measures, MODALITY_SUBSETS[1:]))


def other_millimetres(evaluation: Evaluation) -> Evaluation:
    scores = evaluation.scores
    measures = {name: values[..., :3] for name, values in scores.measures.items()}
    return rescored(evaluation, SubsetScores(scores.subjects, SCORES[:3], measures))


@pytest.mark.parametrize(
    "alter",
    [
        *(seeded, from_a_file, of_before, other_training, other_part, other_voxels, other_data, a_subject_less),
        *(a_subject_changed, a_subset_less, other_millimetres),
    ],
    ids=lambda alter: alter.__name__,
)
def test_beside_other_scores_nothing_published_is_shown(alter: Callable[[Evaluation], Evaluation]) -> None:
    evaluation = alter(published_evaluation("brats2020", "published", (0.9, 0.8, 0.6, 0.65)))
    assert comparable_split(evaluation) is None
    text = summary_markdown(evaluation)
    assert "paper" not in text
    assert "RFNet" not in text


def test_the_settings_say_whether_the_training_was_the_published_one() -> None:
    dataset = DATASETS["brats2020"]
    as_published = {"split": "published", "trained_as_published": True}
    assert split_settings(dataset, SPLIT, SPLIT.train) == as_published
    for training in (SPLIT.train[1:], (*SPLIT.train, SPLIT.validation[0]), (*SPLIT.train, UNNAMED_SUBJECTS), ()):
        assert split_settings(dataset, SPLIT, training) == {"split": "published", "trained_as_published": False}
    # What the authors publish does not say it: whoever names the split answers for it.
    assert split_settings(dataset, SPLIT, (), is_stated=True) == {**as_published, "trained_as_published": None}
    assert split_settings(dataset, SPLIT, SPLIT.train[1:], is_stated=True)["trained_as_published"] is False
    drawn = Split(SPLIT.train, SPLIT.validation, SPLIT.test, "seeded, --split-seed 0")
    assert split_settings(dataset, drawn, SPLIT.train) == {"split": "seeded, --split-seed 0"}
    assert split_settings(dataset, None, SPLIT.train) == {}
    assert split_settings(dataset, Split(("a",), ("b",), ("c",)), ("a",)) == {}


def test_how_scores_came_about_is_told_as_far_as_it_is_known() -> None:
    evaluation = published_evaluation("brats2020", "published", (0.9, 0.8, 0.6, 0.65))
    told = describe_origin(change(evaluation, precision="tf32", weights="best"))
    assert list(told) == ["Subjects", "Split", "Weights", "Computed in", "ET"]
    assert told["Subjects"] == "100 (test)"
    assert told["Split"] == "published split of BraTS2020 (219/50/100 subjects), --split published"
    assert told["Weights"] == "best, of the best validation"
    assert told["Computed in"] == "tf32"
    assert "as predicted" in told["ET"]
    assert "fewer than 500 voxels" in told["ET"]
    before = of_before(other_millimetres(evaluation))
    assert describe_origin(before) == {
        "Subjects": "100 (test)",
        "Weights": "last, after the last step",
        "ET": "as predicted",
    }


@pytest.mark.parametrize("dataset", ["brats2015", "brats2018", "brats2020", "brats2023"])
def test_every_list_has_published_averages(dataset: str) -> None:
    for score in published_scores(dataset):
        whole, core, enhancing = score.dice
        assert 1 > whole > core > enhancing > 0.4
    assert published_scores(dataset)
    assert not published_scores("brats2019")


def test_a_checkpoint_of_other_origin_is_named_by_its_file() -> None:
    told = describe_origin(change(published_evaluation("brats2020", "published", (0.5,) * 4), weights="RFNet.pth"))
    assert told["Weights"] == "RFNet.pth"
