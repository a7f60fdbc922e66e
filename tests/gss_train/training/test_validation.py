from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from gss_train.common.processes import ALONE, Processes
from gss_train.data import DATASETS, MODALITY_SUBSETS, PreparedSubject, subset_name
from gss_train.evaluation.scoring import evaluate_subsets
from gss_train.evaluation.subset_scores import SubsetScores
from gss_train.inference.windows import SlidingWindow
from gss_train.runs.records import ValidationRecord
from gss_train.training.validation import FEW_SUBSETS, ValidationState, validate, validation_subsets
from tests.gss_train.training.voxelwise import VoxelwiseNetwork, make_subject

CPU = torch.device("cpu")
DATASET = DATASETS["brats2018"]
REGIONS = ("WT", "TC", "ET")


def run_validation(
    network: VoxelwiseNetwork,
    subjects: list[PreparedSubject],
    best_before: float | None = None,
    subsets: tuple[tuple[bool, ...], ...] = FEW_SUBSETS,
    processes: Processes = ALONE,
) -> ValidationRecord:
    return validate(
        network,
        subjects,
        DATASET,
        (4, 4, 4),
        CPU,
        stage="baseline",
        epoch=3,
        step=12,
        subsets=subsets,
        processes=processes,
        best_before=best_before,
    )


def score(
    network: VoxelwiseNetwork, subjects: list[PreparedSubject], subsets: tuple[tuple[bool, ...], ...]
) -> SubsetScores:
    window = SlidingWindow((4, 4, 4))
    return evaluate_subsets(network.eval(), subjects, DATASET, window, CPU, lambda *_: None, subsets=subsets)


@pytest.fixture
def network() -> VoxelwiseNetwork:
    torch.manual_seed(0)
    return VoxelwiseNetwork().train()


@pytest.fixture
def subjects(tmp_path: Path) -> list[PreparedSubject]:
    """The second has no T1ce."""
    first, second = (make_subject(tmp_path, name, seed, size=6) for seed, name in enumerate("ab"))
    metadata = dataclasses.replace(second.metadata, available=(True, False, True, True))
    return [first, dataclasses.replace(second, metadata=metadata)]


def test_few_subsets_are_each_modality_alone_and_all_four() -> None:
    assert [subset_name(subset) for subset in FEW_SUBSETS] == ["T2", "T1ce", "T1", "FLAIR", "FLAIR+T1ce+T1+T2"]
    assert validation_subsets("few") == FEW_SUBSETS
    assert validation_subsets("all") == MODALITY_SUBSETS


def test_the_mean_counts_every_subject_subset_and_region_alike(
    network: VoxelwiseNetwork, subjects: list[PreparedSubject]
) -> None:
    record = run_validation(network, subjects)
    scores = score(network, subjects, FEW_SUBSETS)
    values = [
        scores.dice[number, row, region].item()
        for number, subject in enumerate(subjects)
        for row, subset in enumerate(FEW_SUBSETS)
        for region in range(3)
        if all(have or not want for have, want in zip(subject.available, subset, strict=True))
    ]
    assert len(values) == (5 + 3) * 3
    assert 0 < record.mean_dice < 1
    assert record.mean_dice == pytest.approx(sum(values) / len(values))
    assert (record.stage, record.epoch, record.step) == ("baseline", 3, 12)


def test_dice_is_that_of_the_evaluation_by_subset_and_region(
    network: VoxelwiseNetwork, subjects: list[PreparedSubject]
) -> None:
    record = run_validation(network, subjects, subsets=MODALITY_SUBSETS)
    scores = score(network, subjects, MODALITY_SUBSETS)
    assert list(record.dice) == [subset_name(subset) for subset in MODALITY_SUBSETS]
    for values, expected in zip(record.dice.values(), scores.mean.tolist(), strict=True):
        assert values == dict(zip(scores.names, expected, strict=True))


def test_what_no_subject_has_the_scans_for_is_none(network: VoxelwiseNetwork, subjects: list[PreparedSubject]) -> None:
    record = run_validation(network, subjects[1:])
    assert set(record.dice["T1ce"].values()) == {None}
    assert record.mean_dice is not None
    json.dumps(dataclasses.asdict(record), allow_nan=False)
    without = run_validation(network, subjects[1:], subsets=((False, True, False, False),))
    assert without.mean_dice is None
    assert not without.best


@pytest.mark.parametrize("training", [True, False])
def test_validation_leaves_the_network_and_the_random_state_alone(
    network: VoxelwiseNetwork, subjects: list[PreparedSubject], training: bool
) -> None:
    network.train(training)
    network.deep.eval()
    weights = {name: weight.clone() for name, weight in network.state_dict().items()}
    modes = []
    network.fusion.register_forward_hook(lambda *_: modes.append((network.training, torch.is_inference_mode_enabled())))
    random_state = torch.get_rng_state()
    run_validation(network, subjects)
    assert set(modes) == {(False, True)}
    assert (network.training, network.fusion.training, network.deep.training) == (training, training, False)
    assert all(torch.equal(weight, weights[name]) for name, weight in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_network_can_be_trained_after_a_validation(
    network: VoxelwiseNetwork, subjects: list[PreparedSubject]
) -> None:
    run_validation(network, subjects)
    network.fuse((torch.ones(1, 4, 4, 4, 4),), torch.ones(1, 4, dtype=torch.bool)).sum().backward()
    assert network.fusion.weight.grad is not None


def test_the_best_is_no_worse_than_those_before(network: VoxelwiseNetwork, subjects: list[PreparedSubject]) -> None:
    record = run_validation(network, subjects)
    assert record.best
    mean = record.mean_dice
    assert mean is not None
    for before, best in ((mean - 0.01, True), (mean, True), (mean + 0.01, False)):
        assert run_validation(network, subjects, best_before=before).best == best


def test_every_process_gets_the_record_of_one_alone(network: VoxelwiseNetwork, subjects: list[PreparedSubject]) -> None:
    @dataclasses.dataclass(frozen=True)
    class OneOfTwo(Processes):
        """Keeps what it adds; adds what the other added."""

        others: tuple[Tensor, ...] = ()
        own: list[Tensor] = dataclasses.field(default_factory=list)

        def sum(self, values: Tensor) -> Tensor:
            assert (values[1 - self.rank] == 0).all()
            self.own.append(values)
            return values + self.others[len(self.own) - 1] if self.others else values

    record = run_validation(network, subjects)
    summands = []
    for rank in range(2):
        process = OneOfTwo(rank, 2)
        run_validation(network, subjects, processes=process)
        summands.append(tuple(process.own))
    for rank in range(2):
        assert run_validation(network, subjects, processes=OneOfTwo(rank, 2, others=summands[1 - rank])) == record


MEANS = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8)


@given(st.lists(MEANS, max_size=4))
def test_the_state_is_what_the_history_says(stages: list[list[float | None]]) -> None:
    state = ValidationState()
    seen: list[float] = []
    for means in stages:
        state = state.begin_stage()
        assert not state.should_stop(1)
        of_stage: list[float] = []
        for mean in means:
            state = state.update(mean)
            if mean is not None:
                of_stage.append(mean)
            best = max([*seen, *of_stage], default=None)
            since = len(of_stage) - 1 - of_stage.index(max(of_stage)) if of_stage else 0
            assert (state.best_dice, state.without_improvement) == (best, since)
            for patience in (1, 2, 3):
                assert state.should_stop(patience) == (since >= patience)
            assert not state.should_stop(None)
        seen += of_stage


def test_a_stage_that_begins_worse_than_the_one_before_has_its_own_patience() -> None:
    state = ValidationState().update(0.8).begin_stage()
    for mean in (0.5, 0.6, 0.7):
        state = state.update(mean)
        assert not state.should_stop(1)
    assert state.best_dice == 0.8
    assert state.update(0.7).should_stop(1)
