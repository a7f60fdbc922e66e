from __future__ import annotations

import multiprocessing
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gss_train.data.crops import Crop, TrainingCrops
from gss_train.data.prepared import PreparedSubject


def same(first: Crop, second: Crop) -> bool:
    return all(torch.equal(first[key], second[key]) for key in ("image", "label", "available", "subject"))


def record_starts(crops: TrainingCrops, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[int, ...]]]:
    """Subject and start of every crop of the epoch."""
    starts: list[tuple[int, ...]] = []
    read = PreparedSubject.crop

    def crop(self: PreparedSubject, start: tuple[int, ...], size: tuple[int, ...]) -> object:
        starts.append(tuple(start))
        return read(self, start, size)

    monkeypatch.setattr(PreparedSubject, "crop", crop)
    numbers = [int(crops[index]["subject"]) for index in range(len(crops))]
    return list(zip(numbers, starts, strict=True))


def test_shapes_and_types(prepared_subjects: list[PreparedSubject]) -> None:
    crop = TrainingCrops(prepared_subjects, (8, 7, 6), length=3, seed=0)[1]
    assert (crop["image"].shape, crop["image"].dtype) == ((4, 8, 7, 6), torch.float16)
    assert (crop["label"].shape, crop["label"].dtype) == ((8, 7, 6), torch.uint8)
    assert crop["available"].tolist() == [True] * 4
    assert (crop["subject"].shape, crop["subject"].dtype) == ((), torch.int64)


def test_each_crop_tells_the_scans_of_its_subject(prepared_subjects: list[PreparedSubject]) -> None:
    first, second = prepared_subjects[:2]
    partial = replace(first, metadata=replace(first.metadata, available=(True, False, False, True)))
    crops = TrainingCrops([partial, second], (8, 7, 6), length=6, seed=0)
    for crop in DataLoader(crops, batch_size=1):
        expected = [True, False, False, True] if crop["subject"] == 0 else [True] * 4
        assert crop["available"].tolist() == [expected]


def test_subjects_without_label_are_refused_by_name(prepared_subjects: list[PreparedSubject]) -> None:
    first, second, third = prepared_subjects[:3]
    unlabelled = [replace(subject, metadata=replace(subject.metadata, has_label=False)) for subject in (first, third)]
    with pytest.raises(ValueError, match=r"without label.*: BraTS20_Training_001, BraTS20_Training_003$"):
        TrainingCrops([unlabelled[0], second, unlabelled[1]], (8, 8, 8), length=1, seed=0)


def test_a_crop_is_part_of_its_subject(
    prepared_subjects: list[PreparedSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = TrainingCrops(prepared_subjects, (8, 7, 6), length=8, seed=0)
    for index, (number, start) in enumerate(record_starts(crops, monkeypatch)):
        image, label = prepared_subjects[number].crop(start, (8, 7, 6))
        np.testing.assert_array_equal(crops[index]["image"], image)
        np.testing.assert_array_equal(crops[index]["label"], label)


def test_an_item_depends_on_seed_epoch_and_index_alone(prepared_subjects: list[PreparedSubject]) -> None:
    def build(seed: int, epoch: int) -> TrainingCrops:
        crops = TrainingCrops(prepared_subjects, (8, 8, 8), length=6, seed=seed, tumour_share=0.5)
        crops.set_epoch(epoch)
        return crops

    forwards, backwards = build(1, 2), build(1, 2)
    last_first = [backwards[index] for index in reversed(range(6))][::-1]
    assert all(same(forwards[index], last_first[index]) for index in range(6))
    for other in (build(2, 2), build(1, 3)):
        assert not all(same(forwards[index], other[index]) for index in range(6))


def test_every_subject_comes_equally_often_in_shuffled_order(prepared_subjects: list[PreparedSubject]) -> None:
    crops = TrainingCrops(prepared_subjects, (8, 8, 8), length=23, seed=0)
    orders = []
    for epoch in range(4):
        crops.set_epoch(epoch)
        order = [int(crops[index]["subject"]) for index in range(23)]
        for turn in range(0, 20, 5):
            assert sorted(order[turn : turn + 5]) == [0, 1, 2, 3, 4]
        assert sorted(Counter(order).values()) == [4, 4, 5, 5, 5]
        orders += [tuple(order[turn : turn + 5]) for turn in range(0, 20, 5)]
    assert len(set(orders)) > 10


def test_starts_are_uniform_over_all_positions(
    prepared_subjects: list[PreparedSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = prepared_subjects[0]
    size = (subject.shape[0] - 2, subject.shape[1], subject.shape[2] - 3)
    crops = TrainingCrops([subject], size, length=1200, seed=0)
    counts = Counter(start for _, start in record_starts(crops, monkeypatch))
    assert set(counts) == {(x, 0, z) for x in range(3) for z in range(4)}
    # The 99.9 % quantile of the chi-square distribution with 11 degrees of freedom.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 31.3


def test_the_tumour_share_is_met_and_places_vary(
    prepared_subjects: list[PreparedSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = prepared_subjects[4]
    whole = subject.crop((0, 0, 0), subject.shape)[1]

    def share_with_tumour(tumour_share: float) -> float:
        crops = TrainingCrops([subject], (2, 2, 2), length=800, seed=0, tumour_share=tumour_share)
        return float(np.mean([bool(crops[index]["label"].any()) for index in range(800)]))

    windows = np.lib.stride_tricks.sliding_window_view(whole, (2, 2, 2))
    by_chance = float(np.mean(windows.any(axis=(3, 4, 5))))
    assert by_chance < 0.6
    assert share_with_tumour(1.0) == 1
    for tumour_share in (0.0, 0.4):
        expected = tumour_share + (1 - tumour_share) * by_chance
        assert abs(share_with_tumour(tumour_share) - expected) < 0.07  # 4 standard deviations
    crops = TrainingCrops([subject], (4, 4, 4), length=400, seed=0, tumour_share=1.0)
    assert len({start for _, start in record_starts(crops, monkeypatch)}) > 100


def test_a_subject_without_tumour_is_cropped_anywhere(prepared_subjects: list[PreparedSubject]) -> None:
    healthy = replace(prepared_subjects[0], metadata=replace(prepared_subjects[0].metadata, tumour_voxels=()))
    assert TrainingCrops([healthy], (8, 8, 8), length=1, seed=0, tumour_share=1.0)[0]["image"].shape == (4, 8, 8, 8)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="spawning shares every tensor anyway")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_loader_process_that_stays_sees_the_next_epoch(prepared_subjects: list[PreparedSubject]) -> None:
    crops = TrainingCrops(prepared_subjects, (8, 8, 8), length=5, seed=0)
    loader = DataLoader(crops, batch_size=5, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    batches = []
    for epoch in range(2):
        crops.set_epoch(epoch)
        batches += list(loader)
        expected = torch.stack([crops[index]["image"] for index in range(5)])
        assert torch.equal(batches[epoch]["image"], expected)
    assert not torch.equal(batches[0]["image"], batches[1]["image"])


def test_impossible_arguments_are_refused(prepared_subjects: list[PreparedSubject]) -> None:
    with pytest.raises(ValueError, match="subjects: got none"):
        TrainingCrops([], (8, 8, 8), length=1, seed=0)
    with pytest.raises(ValueError, match="crop_size"):
        TrainingCrops(prepared_subjects, (8, 8, 0), length=1, seed=0)
    with pytest.raises(ValueError, match="length"):
        TrainingCrops(prepared_subjects, (8, 8, 8), length=0, seed=0)
    with pytest.raises(ValueError, match="tumour_share"):
        TrainingCrops(prepared_subjects, (8, 8, 8), length=1, seed=0, tumour_share=1.1)
    crops = TrainingCrops(prepared_subjects, (8, 8, 8), length=1, seed=0)
    with pytest.raises(ValueError, match="epoch"):
        crops.set_epoch(-1)
    with pytest.raises(IndexError):
        crops[1]
