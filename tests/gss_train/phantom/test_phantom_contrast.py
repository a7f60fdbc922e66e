"""What a single modality tells about the tumour, found without a network: by a quadratic discriminant on patches."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from gss_train.phantom.anatomy import load_atlas
from gss_train.phantom.contrast import SIGNAL
from gss_train.phantom.grid import Grid
from gss_train.phantom.subject import SimulatedSubject, simulate_subject
from gss_train.phantom.tumour import ENHANCING

GRID = Grid.for_brain((48, 56, 48))
TRAINING, TEST = 6, 4
FloatArray = NDArray[np.float64]


@pytest.fixture(scope="module")
def subjects() -> list[SimulatedSubject]:
    """As in a phantom, every fourth is an LGG."""
    atlas = load_atlas(GRID.spacing)
    return [simulate_subject(atlas, GRID, 21, index, high_grade=index % 4 != 3) for index in range(TRAINING + TEST)]


def patch_features(image: NDArray[np.int16]) -> FloatArray:
    """Intensity, and mean and deviation of surroundings of 4 and 8 mm: [brain voxels, 5]."""
    brain = image > 0
    normal = np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0)
    features = [normal]
    for width in (4 / GRID.spacing, 8 / GRID.spacing):
        weight = np.maximum(ndimage.gaussian_filter(brain.astype(float), width), 1e-3)
        mean = ndimage.gaussian_filter(normal, width) / weight
        square = ndimage.gaussian_filter(normal**2, width) / weight
        features += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
    return np.stack(features)[:, brain].T


def log_likelihoods(training: FloatArray, truth: NDArray[np.uint8], test: FloatArray) -> FloatArray:
    """Of a normal distribution for each category, up to a constant: [test voxels, 5]."""
    columns = []
    for category in range(5):
        sample = training[truth == category]
        covariance = np.cov(sample.T) + 1e-4 * np.eye(sample.shape[1])
        deviation = test - sample.mean(axis=0)
        distance = np.einsum("ni,ni->n", deviation @ np.linalg.inv(covariance), deviation)
        columns.append(-0.5 * (distance + np.linalg.slogdet(covariance)[1]))
    return np.stack(columns, axis=1)


class Discriminant:
    """Fitted to the first subjects with one modality alone, tried on the others."""

    def __init__(self, subjects: list[SimulatedSubject], modality: str) -> None:
        features = [patch_features(subject.images[modality]) for subject in subjects]
        truths = [subject.categories[subject.images[modality] > 0] for subject in subjects]
        training_truth = np.concatenate(truths[:TRAINING])
        self.truth = np.concatenate(truths[TRAINING:])
        likelihood = log_likelihoods(
            np.concatenate(features[:TRAINING]), training_truth, np.concatenate(features[TRAINING:])
        )
        self.prior = np.log(np.bincount(training_truth, minlength=5) / len(training_truth))
        self.joint = likelihood + self.prior

    def balanced_accuracy(self, one: list[int], other: list[int]) -> float:
        """Mean share of the voxels of either side that are told from those of the other side."""
        among = np.isin(self.truth, one + other)
        scores = [
            np.logaddexp.reduce(self.joint[among][:, side], axis=1) - np.logaddexp.reduce(self.prior[side])
            for side in (one, other)
        ]
        called, true = scores[0] > scores[1], np.isin(self.truth[among], one)
        return float((called[true].mean() + (~called[~true]).mean()) / 2)

    def dice(self, categories: list[int]) -> float:
        called, true = np.isin(self.joint.argmax(axis=1), categories), np.isin(self.truth, categories)
        return float(2 * (called & true).sum() / (called.sum() + true.sum()))


@pytest.fixture(scope="module")
def discriminants(subjects: list[SimulatedSubject]) -> dict[str, Discriminant]:
    return {modality: Discriminant(subjects, modality) for modality in SIGNAL}


def test_t1ce_alone_shows_enhancing_tumour_and_the_others_do_not(discriminants: dict[str, Discriminant]) -> None:
    t1ce = discriminants["T1ce"]
    assert t1ce.balanced_accuracy([ENHANCING], [1, 2, 3]) > 0.92
    assert t1ce.balanced_accuracy([ENHANCING], [0, 1, 2, 3]) > 0.92
    assert t1ce.dice([ENHANCING]) > 0.7
    for modality in ("FLAIR", "T1", "T2"):
        # Somewhat above chance: a rim is likely where one side of the surroundings is necrosis.
        assert discriminants[modality].balanced_accuracy([ENHANCING], [1, 2, 3]) < 0.72, modality
        assert discriminants[modality].dice([ENHANCING]) < 0.35, modality


def test_flair_alone_shows_the_whole_tumour_and_the_others_less_of_it(discriminants: dict[str, Discriminant]) -> None:
    whole = [1, 2, 3, 4]
    flair = discriminants["FLAIR"]
    assert flair.balanced_accuracy(whole, [0]) > 0.95
    assert flair.dice(whole) > 0.8
    for modality in ("T1ce", "T1", "T2"):
        assert discriminants[modality].dice(whole) < flair.dice(whole) - 0.1, modality
