from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gss_train.common.errors import UserError
from gss_train.common.processes import Processes
from gss_train.data import PreparedSubject, TrainingCrops
from gss_train.training import Pass
from gss_train.training.batches import BatchPlan, TrainingBatches
from tests.gss_train.training.voxelwise import CROP, make_subject

BATCH, STEPS = 8, 3


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedSubject]:
    folder: Path = tmp_path_factory.mktemp("prepared")
    return [make_subject(folder, f"subject-{number}", number, 12) for number in range(3)]


def batches(subjects: list[PreparedSubject], rank: int = 0, size: int = 1, passes: int = 1) -> TrainingBatches:
    crops = TrainingCrops(subjects, CROP, BATCH * STEPS, seed=1)
    return TrainingBatches(crops, BatchPlan(BATCH, passes, STEPS, Processes(rank, size)), seed=1)


def same(first: Pass, second: Pass) -> bool:
    drawn = [[torch.rand((), generator=own.clone_state()) for own in one.generators] for one in (first, second)]
    tensors = ("image", "label", "available", "fused_modalities", "subjects")
    return drawn[0] == drawn[1] and all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors)


def joined(parts: list[Pass]) -> Pass:
    first = parts[0]
    names = ("image", "label", "available", "fused_modalities", "subjects")
    return first._replace(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names},
        generators=[own for part in parts for own in part.generators],
    )


@pytest.mark.parametrize(("size", "passes"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 2), (8, 1)])
def test_however_a_step_is_divided_its_samples_are_the_same(
    subjects: list[PreparedSubject], size: int, passes: int
) -> None:
    whole = list(batches(subjects).steps(epoch=2))
    divided = [list(batches(subjects, rank, size, passes).steps(epoch=2)) for rank in range(size)]
    assert len(whole) == STEPS
    for step in range(STEPS):
        parts = [part for steps in divided for part in steps[step]]
        assert [part.first_sample for part in parts] == list(range(0, BATCH, BATCH // (size * passes)))
        assert same(joined(parts), whole[step][0])
        assert {part.mask_seed for part in parts} == {whole[step][0].mask_seed}
        assert len({part.network_seed for part in parts}) == len(parts)


def test_an_epoch_can_begin_at_any_of_its_steps(subjects: list[PreparedSubject]) -> None:
    whole = list(batches(subjects).steps(epoch=1))
    some = batches(subjects)
    for first_step in (2, 0, STEPS, 1):
        rest = list(some.steps(epoch=1, first_step=first_step))
        assert len(rest) == STEPS - first_step
        assert all(same(a[0], b[0]) for a, b in zip(rest, whole[first_step:], strict=True))


def test_steps_and_epochs_differ(subjects: list[PreparedSubject]) -> None:
    source = batches(subjects)
    steps = [parts[0] for epoch in range(2) for parts in source.steps(epoch)]
    assert all(not torch.equal(a.image, b.image) for index, a in enumerate(steps) for b in steps[:index])
    assert len({part.mask_seed for part in steps}) == len(steps)


def test_a_whole_step_is_made_again(subjects: list[PreparedSubject]) -> None:
    whole = list(batches(subjects).steps(epoch=1))
    divided = batches(subjects, rank=1, size=2, passes=2)
    for step in range(STEPS):
        assert same(divided.whole_step(1, step), whole[step][0])


def test_each_sample_is_given_a_subset_of_its_own_scans(subjects: list[PreparedSubject]) -> None:
    parts = [parts[0] for epoch in range(4) for parts in batches(subjects).steps(epoch)]
    fused = torch.cat([part.fused_modalities for part in parts])
    assert fused.any(dim=1).all()
    assert len({tuple(row) for row in fused.tolist()}) > 10
    assert all((part.fused_modalities <= part.available).all() for part in parts)


def test_uneven_parts_are_refused() -> None:
    with pytest.raises(UserError, match=r"--batch-size: got 6, need a multiple of 4.*--accumulate"):
        BatchPlan(6, 2, 3, Processes(0, 2))
