"""Windows larger than a prepared volume see what they would if its file had been padded with background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gss_train.data import DATASETS, MODALITY_SUBSETS, PreparedSubject, find_subjects, prepare_dataset
from gss_train.evaluation import evaluate_subsets
from gss_train.inference import SlidingWindow, segment_tumour_crop
from gss_train.training.validation import validate
from tests.gss_train.data.prepared_files import padded_file
from tests.gss_train.data.raw_files import make_head, write_subject
from tests.gss_train.training.voxelwise import VoxelwiseNetwork

DATASET = DATASETS["brats2020"]
WINDOW = (24, 16, 40)
CPU = torch.device("cpu")

Pair = tuple[PreparedSubject, PreparedSubject]


@pytest.fixture(scope="module", params=[None, (2.0, 2.0, 2.0)], ids=["own voxels", "other voxels"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A subject without T1 that is smaller than the window on some axes, and the same one with a padded file."""
    folder = tmp_path_factory.mktemp("pair")
    shape = (30, 30, 26) if request.param is None else (60, 60, 52)
    write_subject(folder / "raw" / "BraTS20_Training_001", make_head(shape), ".nii")
    (folder / "raw" / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii").unlink()
    subjects = find_subjects(folder / "raw", DATASET)
    (subject,) = prepare_dataset(subjects, DATASET, folder / "out", (8, 8, 8), 1, spacing=request.param).subjects
    padded = padded_file(subject, WINDOW, folder / "padded")
    assert padded.shape[2] == WINDOW[2] > subject.shape[2]
    assert (subject.metadata.truth is None) == (request.param is None)
    return subject, padded


@pytest.fixture
def network() -> VoxelwiseNetwork:
    torch.manual_seed(0)
    return VoxelwiseNetwork().eval()


def seen_by(segment: Callable[[PreparedSubject], list[Tensor]], pair: Pair) -> None:
    plain, padded = map(segment, pair)
    assert plain
    for own, expected in zip(plain, padded, strict=True):
        assert torch.equal(own.nan_to_num(-1), expected.nan_to_num(-1))


def test_an_evaluation(network: VoxelwiseNetwork, pair: Pair) -> None:
    def segment(subject: PreparedSubject) -> list[Tensor]:
        kept: list[Tensor] = []
        scores = evaluate_subsets(
            network,
            [subject],
            DATASET,
            SlidingWindow(WINDOW),
            CPU,
            lambda *_: None,
            subsets=MODALITY_SUBSETS[-3:],
            keep=lambda _, *volumes: kept.extend(volumes),
        )
        return [scores.dice, *kept]

    seen_by(segment, pair)


def test_a_validation_and_its_vote(network: VoxelwiseNetwork, pair: Pair) -> None:
    first, second = (
        validate(network, [subject], DATASET, WINDOW, CPU, stage="baseline", epoch=1, step=1) for subject in pair
    )
    assert first.vote is not None
    assert first == second


def test_the_crop_of_an_epoch(network: VoxelwiseNetwork, pair: Pair) -> None:
    seen_by(lambda subject: list(segment_tumour_crop(network, subject, WINDOW, CPU)), pair)
    image, truth, _ = segment_tumour_crop(network, pair[0], WINDOW, CPU)
    assert image.shape == (4, *WINDOW)
    assert np.count_nonzero(truth)
