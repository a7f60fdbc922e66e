from __future__ import annotations

import pytest
import torch

from gss_kernels import BRATS_2018, fused_gss_loss, fused_segmentation_loss, gss_loss_reference
from gss_train.config import SelfSupportOptions
from gss_train.models import SegmentationOutput
from gss_train.training.objective import BASELINE, GROUP_SELF_SUPPORT, Objective, ObjectiveSettings, gss_objective
from gss_train.training.unfused_losses import plain_cross_entropy, squared_dice


def random_output(seed: int = 0) -> tuple[SegmentationOutput, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 4, 4, 4, 4)
    logits = [3 * torch.randn(shape, generator=generator) for _ in range(7)]
    auxiliary = tuple(torch.softmax(z, dim=1) for z in logits[5:])
    labels = torch.randint(0, 4, (2, 4, 4, 4), generator=generator, dtype=torch.uint8)
    return SegmentationOutput(logits[0], tuple(logits[1:5]), auxiliary, torch.tensor(0.25)), labels


def supervised(
    probabilities: torch.Tensor, labels: torch.Tensor, available: torch.Tensor | None = None
) -> torch.Tensor:
    terms = fused_segmentation_loss(
        probabilities, labels, input_kind="probabilities", available=available, backend="reference"
    )
    return terms.cross_entropy + terms.dice


def test_published_objective_with_gss() -> None:
    output, labels = random_output()
    available = torch.tensor([[True, True, True, True], [True, False, True, True]])
    terms = Objective(BRATS_2018, GROUP_SELF_SUPPORT)(output, labels, available, seed=5)
    assert output.separate is not None
    assert output.auxiliary is not None
    separate = sum(
        supervised(torch.softmax(logits, dim=1), labels, available[:, modality])
        for modality, logits in enumerate(output.separate)
    )
    auxiliary = sum(supervised(probabilities, labels) for probabilities in output.auxiliary)
    gss = gss_loss_reference(output.separate, BRATS_2018, seed=5, available=available)
    total = supervised(torch.softmax(output.fused, dim=1), labels) + 0.7 * separate + auxiliary + 0.3 * 6.4 * gss + 0.25
    torch.testing.assert_close(terms.total, total)
    torch.testing.assert_close(terms.gss, gss)


def test_published_baseline_counts_separate_fully_and_has_no_gss() -> None:
    output, labels = random_output(1)
    terms = Objective(BRATS_2018, BASELINE)(output, labels, torch.ones(2, 4, dtype=torch.bool), seed=0)
    torch.testing.assert_close(terms.total, terms.fused + terms.separate + terms.auxiliary + 0.25)
    assert terms.gss == 0


def test_a_network_without_own_predictions_can_be_trained_but_not_with_gss() -> None:
    output, labels = random_output()
    output, available = output._replace(separate=None), torch.ones(2, 4, dtype=torch.bool)
    terms = Objective(BRATS_2018, BASELINE)(output, labels, available, 0)
    assert terms.separate == 0
    torch.testing.assert_close(terms.total, terms.fused + terms.auxiliary + 0.25)
    with pytest.raises(ValueError, match="separate"):
        Objective(BRATS_2018, GROUP_SELF_SUPPORT)(output, labels, available, 0)


def test_a_network_without_deep_supervision_has_no_auxiliary_term() -> None:
    output, labels = random_output()
    available = torch.ones(2, 4, dtype=torch.bool)
    with_it = Objective(BRATS_2018, BASELINE)(output, labels, available, 0)
    without = Objective(BRATS_2018, BASELINE)(output._replace(auxiliary=None), labels, available, 0)
    assert without.auxiliary == 0
    torch.testing.assert_close(without.total, with_it.total - with_it.auxiliary)


def test_statistics_of_the_vote_come_with_gss_alone_and_change_nothing() -> None:
    output, labels = random_output(2)
    available = torch.ones(2, 4, dtype=torch.bool)
    plain = Objective(BRATS_2018, GROUP_SELF_SUPPORT)(output, labels, available, 1)
    assert plain.statistics is None
    terms = Objective(BRATS_2018, GROUP_SELF_SUPPORT)(output, labels, available, 1, return_stats=True)
    assert terms.statistics is not None
    assert output.separate is not None
    _, want = fused_gss_loss(output.separate, BRATS_2018, seed=1, return_stats=True)
    assert torch.equal(terms.statistics.routes, want.routes)
    assert torch.equal(terms.statistics.agreement, want.agreement)
    assert torch.equal(terms.scalars(), plain.scalars())
    assert Objective(BRATS_2018, BASELINE)(output, labels, available, 1, return_stats=True).statistics is None


@pytest.mark.parametrize(("squares", "plain"), [(True, False), (False, True), (True, True)])
def test_a_baseline_has_the_losses_that_were_asked_for(squares: bool, plain: bool) -> None:
    output, labels = random_output(3)
    available = torch.tensor([[True, True, True, True], [True, False, True, True]])
    terms = Objective(BRATS_2018, ObjectiveSettings(squares=squares, plain=plain))(output, labels, available, seed=0)
    assert output.separate is not None
    assert output.auxiliary is not None
    everything = torch.ones(2, dtype=torch.bool)
    logits = (output.fused, *output.separate, *(probabilities.log() for probabilities in output.auxiliary))
    total = torch.tensor(0.25)
    for own, exists in zip(logits, (everything, *available.unbind(1), everything, everything), strict=True):
        usual = fused_segmentation_loss(own, labels, available=exists)
        total = total + (plain_cross_entropy(own, labels, exists) if plain else usual.cross_entropy)
        total = total + (squared_dice(own, labels, exists) if squares else usual.dice)
    torch.testing.assert_close(terms.total, total)


@pytest.mark.parametrize("form", ["squares", "plain"])
def test_other_losses_are_not_for_the_joint_objective(form: str) -> None:
    with pytest.raises(ValueError, match=form):
        ObjectiveSettings(gss=0.5, **{form: True})


def test_the_vote_is_the_one_that_was_asked_for() -> None:
    output, labels = random_output(6)
    available = torch.ones(2, 4, dtype=torch.bool)
    options = SelfSupportOptions(
        temperature=2.0, leader_threshold=0.4, member_threshold=0.3, leader_blend=0.6, mask_ratio=0.5,
        divergence="cross_entropy", semantics="released", class_weighting=False,
    )  # fmt: skip
    terms = Objective(BRATS_2018, gss_objective(options))(output, labels, available, seed=7)
    assert output.separate is not None
    want = gss_loss_reference(
        output.separate, BRATS_2018, seed=7, temperature=2.0, leader_threshold=0.4, member_threshold=0.3,
        leader_blend=0.6, mask_ratio=0.5, divergence="cross_entropy", semantics="released", class_weighting=False,
    )  # fmt: skip
    torch.testing.assert_close(terms.gss, want)


def split(output: SegmentationOutput, part: slice) -> SegmentationOutput:
    assert output.separate is not None
    assert output.auxiliary is not None
    return SegmentationOutput(
        output.fused[part],
        tuple(logits[part] for logits in output.separate),
        tuple(probabilities[part] for probabilities in output.auxiliary),
        output.regulariser,
    )


@pytest.mark.parametrize("settings", [BASELINE, GROUP_SELF_SUPPORT, ObjectiveSettings(squares=True, plain=True)])
def test_per_sample_objectives_average_to_the_batchs(settings: ObjectiveSettings) -> None:
    """Also with scans missing; every sample keeps its part of the voxel mask."""
    output, labels = random_output(3)
    available = torch.tensor([[True, True, True, True], [True, False, True, True]])
    objective = Objective(BRATS_2018, settings, per_sample=True)
    whole = objective(output, labels, available, seed=5)
    parts = [
        objective(split(output, slice(n, n + 1)), labels[n : n + 1], available[n : n + 1], seed=5, first_sample=n)
        for n in range(2)
    ]
    for term, *of_parts in zip(whole.scalars(), *(part.scalars() for part in parts), strict=True):
        torch.testing.assert_close(term, torch.stack(of_parts).mean())
    batch = Objective(BRATS_2018, settings)(output, labels, available, seed=5)
    torch.testing.assert_close(whole.gss, batch.gss)
    assert abs(whole.fused - batch.fused) > 1e-4


def test_a_sample_keeps_its_part_of_the_voxel_mask() -> None:
    output, labels = random_output(4)
    available = torch.ones(2, 4, dtype=torch.bool)
    objective = Objective(BRATS_2018, GROUP_SELF_SUPPORT)
    second = split(output, slice(1, 2)), labels[1:], available[1:]
    in_place, at_the_start = objective(*second, seed=5, first_sample=1), objective(*second, seed=5)
    first = objective(split(output, slice(0, 1)), labels[:1], available[:1], seed=5)
    whole = objective(output, labels, available, seed=5)
    torch.testing.assert_close((first.gss + in_place.gss) / 2, whole.gss)
    assert in_place.gss != at_the_start.gss


def test_statistics_of_per_sample_objectives_are_the_batchs() -> None:
    output, labels = random_output(5)
    available = torch.ones(2, 4, dtype=torch.bool)
    whole, single = (
        Objective(BRATS_2018, GROUP_SELF_SUPPORT, per_sample=per_sample)(
            output, labels, available, seed=1, return_stats=True
        ).statistics
        for per_sample in (False, True)
    )
    assert whole is not None
    assert single is not None
    torch.testing.assert_close(whole.routes, single.routes)
    torch.testing.assert_close(whole.agreement, single.agreement)
