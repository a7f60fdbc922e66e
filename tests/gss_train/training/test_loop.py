from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from gss_train.common.processes import ALONE
from gss_train.config import ComputedPrecision, Config, DataOptions, TrainingOptions
from gss_train.data import DATASETS, PUBLISHED_AUGMENTATION, AugmentationSettings, PreparedSubject, TrainingCrops
from gss_train.models import SegmentationNetwork, build_network
from gss_train.runs import CheckpointStore
from gss_train.training import Computation
from gss_train.training.averaging import WeightAverage
from gss_train.training.batches import BatchPlan, TrainingBatches
from gss_train.training.gathering import FetchedStep
from gss_train.training.loop import train
from gss_train.training.plan import Drawing, TrainingPlan
from gss_train.training.schedule import Stage, plan_stages
from gss_train.training.state import TrainingState
from tests.gss_train.training.voxelwise import CROP, VoxelwiseNetwork, make_subject

NOWHERE = Path("not written to")


class StoppedError(Exception):
    """The listener was told to stop."""


class Listener:
    """In place of a `Recorder`: remembers what it is told, and stops after a step if it shall.

    Attributes:
        learning_rates: of the finished epochs.
        terms: their mean terms.
        positions: (stage, epochs of the stage, epochs, steps) of the finished epochs.
        ends: the weights at the ends of the epochs.
        fetched: all steps.
    """

    def __init__(self, stop_after: int | None = None, ended_stages: tuple[str, ...] = ()) -> None:
        self.stop_after = stop_after
        self.ended_stages = ended_stages
        self.learning_rates: list[float] = []
        self.terms: list[dict[str, Any]] = []
        self.positions: list[tuple[str, int, int, int]] = []
        self.ends: list[list[Tensor]] = []
        self.fetched: list[FetchedStep] = []
        self.fetches: list[int] = []
        self.stages: list[tuple[str, int]] = []
        self.saved: dict[str, Any] | None = None
        self.steps = 0
        self.on_each_step: Callable[[], None] = lambda: None

    @property
    def interrupted(self) -> bool:
        return self.steps == self.stop_after

    def on_step(self, state: TrainingState, stage: Stage) -> None:
        self.steps = state.step
        self.on_each_step()

    def on_fetch(self, state: TrainingState, stage: Stage) -> None:
        self.fetched += state.gathered.fetch()
        self.fetches.append(state.step)

    def on_epoch(self, state: TrainingState, stage: Stage) -> bool:
        assert state.update is not None
        self.learning_rates.append(state.update.learning_rate)
        self.terms.append(state.gathered.epoch.terms())
        state.gathered.begin_epoch()
        self.positions.append((stage.name, state.stage_epoch, state.epoch, state.step))
        self.ends.append([weight.detach().clone() for weight in state.network.parameters()])
        return stage.name in self.ended_stages

    def on_stage(self, state: TrainingState, stage: Stage) -> None:
        self.stages.append((stage.name, state.step))

    def validate_stage(self, stage: Stage, state: TrainingState) -> None:
        pass

    def save(self, state: TrainingState) -> None:
        self.saved = copy.deepcopy(state.state_dict())

    def save_if_due(self, state: TrainingState) -> None:
        self.save(state)

    def stop(self, state: TrainingState, stage: Stage) -> None:
        self.on_fetch(state, stage)
        self.save(state)
        raise StoppedError


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedSubject]:
    folder = tmp_path_factory.mktemp("prepared")
    return [make_subject(folder, f"subject-{number}", number, 20) for number in range(3)]


def run(
    subjects: list[PreparedSubject],
    network: SegmentationNetwork,
    listener: Listener | None = None,
    *,
    seed: int = 0,
    workers: int = 0,
    crop: tuple[int, int, int] = CROP,
    augmentation: AugmentationSettings = PUBLISHED_AUGMENTATION,
    precision: ComputedPrecision = "float32",
    channels_last: bool = False,
    saved: dict[str, Any] | None = None,
    **changes: Any,
) -> tuple[TrainingState, Listener]:
    """Train, or go on with what was saved."""
    options = TrainingOptions(**{"steps_per_epoch": 2, "fusion_warmup_epochs": 0, "rounds": 1, **changes})
    crops = TrainingCrops(subjects, crop, options.batch_size * options.steps_per_epoch, seed)
    config = Config(DataOptions("brats2018"), training=options)
    plan = TrainingPlan(
        config,
        DATASETS["brats2018"],
        Computation(torch.device("cpu"), precision, channels_last, augmentation),
        ALONE,
        NOWHERE,
        CheckpointStore(NOWHERE, keep=1),
        "new",
        tuple(plan_stages(options, config.self_support)),
        BatchPlan(options.batch_size, options.accumulate, options.steps_per_epoch),
        Drawing(draw_nothing, draw_nothing),
    )
    batches = TrainingBatches(crops, plan.batch_plan, seed, workers=workers)
    average = None if options.ema is None else WeightAverage(network, options.ema)
    state = TrainingState(network, options.steps_per_epoch, average)
    if saved is not None:
        state.load_state_dict(saved)
    listener = listener or Listener()
    train(plan, state, batches, listener)
    return state, listener


def draw_nothing(*_: object) -> None:
    pass


def voxelwise(seed: int = 0, poisoned: tuple[int, ...] | range = ()) -> VoxelwiseNetwork:
    torch.manual_seed(seed)
    return VoxelwiseNetwork(poisoned)


def weights(network: SegmentationNetwork) -> list[Tensor]:
    return [weight.detach() for weight in network.parameters()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def steps() -> Iterator[list[tuple[int, float, float]]]:
    """For every optimiser step: the optimiser's identity, its own count of steps, the learning rate it used."""
    taken: list[tuple[int, float, float]] = []
    kept_alive = []

    def record(optimiser: torch.optim.Optimizer, *_: object) -> None:
        kept_alive.append(optimiser)
        counts = {float(state["step"]) for state in optimiser.state.values()}
        (group,) = optimiser.param_groups
        taken.append((id(optimiser), *counts, group["lr"]))

    hook = register_optimizer_step_post_hook(record)
    yield taken
    hook.remove()


def test_adam_is_the_published_one(subjects: list[PreparedSubject]) -> None:
    seen = []

    def look(optimiser: torch.optim.Optimizer, *_: object) -> None:
        assert type(optimiser) is torch.optim.Adam
        (group,) = optimiser.param_groups
        assert (group["amsgrad"], group["weight_decay"], group["betas"]) == (True, 3e-4, (0.9, 0.999))
        assert all("max_exp_avg_sq" in state for state in optimiser.state.values())
        seen.append(len(group["params"]))

    network = voxelwise()
    hook = register_optimizer_step_post_hook(look)
    run(subjects, network, baseline_epochs=1, epochs=1, weight_decay=3e-4)
    hook.remove()
    assert seen == [len(list(network.parameters()))] * 4


def test_every_stage_has_a_fresh_optimiser_and_its_own_decay(
    subjects: list[PreparedSubject], steps: list[tuple[int, float, float]]
) -> None:
    _, listener = run(subjects, voxelwise(), baseline_epochs=4, rounds=2, epochs=3, learning_rate=0.01)
    decays = [0.01 * (1 - epoch / length) ** 0.9 for length in (4, 3, 3) for epoch in range(length)]
    assert listener.learning_rates == pytest.approx(decays)
    assert [rate for _, _, rate in steps] == pytest.approx(np.repeat(decays, 2).tolist())
    assert [count for _, count, _ in steps] == [*range(1, 9), *range(1, 7), *range(1, 7)]
    assert [len({identity for identity, _, _ in steps[a:b]}) for a, b in ((0, 8), (8, 14), (14, 20))] == [1, 1, 1]
    assert len({identity for identity, _, _ in steps}) == 3


def test_records_count_through_all_stages(subjects: list[PreparedSubject]) -> None:
    _, listener = run(subjects, voxelwise(), baseline_epochs=2, rounds=2, epochs=1)
    assert listener.positions == [
        ("baseline", 1, 1, 2),
        ("baseline", 2, 2, 4),
        ("GSS round 1", 1, 3, 6),
        ("GSS round 2", 1, 4, 8),
    ]
    assert [terms["gss"] != 0 for terms in listener.terms] == [False, False, True, True]
    assert listener.stages == [("baseline", 4), ("GSS round 1", 6), ("GSS round 2", 8)]


def test_a_stage_ends_early_if_it_is_told_to(subjects: list[PreparedSubject]) -> None:
    listener = Listener(ended_stages=("baseline",))
    run(subjects, voxelwise(), listener, baseline_epochs=5, rounds=1, epochs=2)
    assert listener.positions == [("baseline", 1, 1, 2), ("GSS round 1", 1, 2, 4), ("GSS round 1", 2, 3, 6)]


def test_a_round_starts_from_the_last_ones_weights(subjects: list[PreparedSubject]) -> None:
    _, listener = run(subjects, voxelwise(), baseline_epochs=0, rounds=2, epochs=1, learning_rate=0.01)
    first, second = listener.ends
    # Adam's first two steps move no weight by more than the learning rate each.
    assert all((b - a).abs().max() < 0.021 for a, b in zip(first, second, strict=True))
    assert not equal(first, second)


def test_the_fused_prediction_does_not_count_while_it_warms_up(subjects: list[PreparedSubject]) -> None:
    network = voxelwise()
    initial = network.fusion.weight.detach().clone()
    gradients: list[float] = []
    moved: list[bool] = []
    listener = Listener()

    def look() -> None:
        assert network.fusion.weight.grad is not None
        gradients.append(float(network.fusion.weight.grad.abs().max()))
        moved.append(not torch.equal(network.fusion.weight, initial))

    listener.on_each_step = look
    run(subjects, network, listener, gss=False, epochs=4, fusion_warmup_epochs=2, weight_decay=0.0)
    assert gradients[:4] == [0.0] * 4
    assert all(gradient > 0 for gradient in gradients[4:])
    assert moved == [False] * 4 + [True] * 4
    for epoch, terms in enumerate(listener.terms, start=1):
        counted = terms["separate"] + terms["auxiliary"] + (terms["fused"] if epoch > 2 else 0)
        assert terms["total"] == pytest.approx(counted, rel=1e-6)
        assert terms["fused"] > 0


def test_gss_waits_for_its_warm_up_and_grows(subjects: list[PreparedSubject]) -> None:
    _, listener = run(subjects, voxelwise(), baseline_epochs=0, epochs=4, gss_warmup=2, gss_ramp=3)
    steps = listener.fetched
    weighted = [step.terms[0] - step.terms[1] - 0.7 * step.terms[2] - step.terms[3] for step in steps]
    assert [step.terms[4] != 0 for step in steps] == [False] * 2 + [True] * 6
    shares = [rest / step.terms[4] for rest, step in zip(weighted, steps, strict=True) if step.terms[4]]
    assert shares == pytest.approx([1.92 * share for share in (0.25, 0.5, 0.75, 1, 1, 1)], rel=1e-3)


def test_modalities_are_dropped_at_random_from_the_fusion_alone(subjects: list[PreparedSubject]) -> None:
    network = voxelwise()
    run(subjects, network, gss=False, epochs=4, steps_per_epoch=10, batch_size=3)
    fused = torch.stack([fused for _, fused, _ in network.inputs])
    assert fused.shape == (40, 3, 4)
    assert fused.any(dim=2).all()
    assert all(available.all() for _, _, available in network.inputs)
    assert not torch.equal(fused[:, 0], fused[:, 1])
    subsets = {tuple(row) for row in fused.flatten(0, 1).tolist()}
    # 120 draws miss one of 15 equally likely subsets with probability 0.004.
    assert len(subsets) >= 14


def test_every_epoch_of_every_stage_sees_new_crops(
    subjects: list[PreparedSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Augmentation would tell equal crops apart.
    monkeypatch.setattr("gss_train.training.loop.augment", lambda image, label, *_: (image.float(), label))
    network = voxelwise()
    run(subjects, network, baseline_epochs=1, rounds=2, epochs=1)
    images = [image for image, _, _ in network.inputs]
    assert all(image.dtype == torch.float32 and image.shape == (2, 4, *CROP) for image in images)
    assert all(not torch.equal(a, b) for index, a in enumerate(images) for b in images[:index])


def test_a_step_with_bad_numbers_is_as_if_it_had_not_been(subjects: list[PreparedSubject]) -> None:
    """The loss is NaN, its gradient is not: weights and moments stay as they are all the same."""
    network = voxelwise(poisoned=(3,))
    ends: list[list[Tensor]] = []
    listener = Listener()
    listener.on_each_step = lambda: ends.append([weight.clone() for weight in weights(network)])
    run(subjects, network, listener, gss=False, epochs=3, learning_rate=0.01)
    assert [step.bad for step in listener.fetched] == [False, False, True, False, False, False]
    assert equal(ends[1], ends[2])
    assert not equal(ends[2], ends[3])
    assert np.isfinite([terms["total"] for terms in listener.terms]).all()


def test_scalars_are_read_every_tenth_step_and_at_the_end_of_an_epoch(subjects: list[PreparedSubject]) -> None:
    _, listener = run(subjects, voxelwise(), gss=False, epochs=2, steps_per_epoch=15)
    assert listener.fetches == [10, 15, 20, 30, 30]
    assert [step.step for step in listener.fetched] == list(range(30))


def test_the_loss_falls(subjects: list[PreparedSubject]) -> None:
    torch.manual_seed(0)
    network = build_network("uhved", 4, crop_size=(16, 16, 16), width=2)
    schedule = {"baseline_epochs": 2, "epochs": 2, "steps_per_epoch": 4, "learning_rate": 0.01, "batch_size": 1}
    _, listener = run(subjects, network, crop=(16, 16, 16), **schedule)
    baseline, late_baseline, gss, late_gss = (terms["total"] for terms in listener.terms)
    assert late_baseline < 0.95 * baseline
    assert late_gss < gss


def final_weights(
    subjects: list[PreparedSubject], default_seed: int = 0, **changes: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights after a short run with some seed of PyTorch's own generator, and the scans that it trained on."""
    network = voxelwise()
    torch.manual_seed(default_seed)
    run(subjects, network, baseline_epochs=1, epochs=1, steps_per_epoch=3, learning_rate=0.01, **changes)
    return weights(network), [image for image, _, _ in network.inputs]


def test_a_seed_repeats_training_whatever_pytorchs_own_generator_holds(subjects: list[PreparedSubject]) -> None:
    first, images = final_weights(subjects, default_seed=5, seed=1)
    again, images_again = final_weights(subjects, default_seed=6, seed=1)
    assert equal(first, again)
    assert equal(images, images_again)
    other, other_images = final_weights(subjects, seed=2)
    assert not equal(first, other)
    assert not equal(images, other_images)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_loader_processes_change_nothing(subjects: list[PreparedSubject]) -> None:
    first, images = final_weights(subjects, workers=0)
    with_workers, images_with_workers = final_weights(subjects, workers=2)
    assert equal(images, images_with_workers)
    assert equal(first, with_workers)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bits_hold_in_the_network_alone(subjects: list[PreparedSubject], precision: ComputedPrecision) -> None:
    """The forward pass computes in 16 bits; weights stay in 32, and losses are what they are but for rounding."""
    seen: list[torch.dtype] = []
    network = voxelwise()
    network.fusion.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    _, rounded = run(subjects, network, baseline_epochs=1, epochs=1, precision=precision)
    _, exact = run(subjects, voxelwise(), baseline_epochs=1, epochs=1)
    assert set(seen) == {getattr(torch, precision)}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not any(step.bad for step in rounded.fetched)
    for one, other in zip(rounded.terms, exact.terms, strict=True):
        assert one != other
        assert one == pytest.approx(other, rel=0.02)


def test_augmentation_is_as_it_is_set(subjects: list[PreparedSubject]) -> None:
    """Without flips, rotation and changes of intensity the network sees crops as they are stored."""
    still = AugmentationSettings(rotation_degrees=0, scale=0, shift=0, flip=False)
    network, other = voxelwise(), voxelwise()
    crops = TrainingCrops(subjects, CROP, 4, 0)
    run(subjects, network, gss=False, epochs=1, augmentation=still)
    run(subjects, other, gss=False, epochs=1)
    stored = torch.stack([crops[index]["image"].float() for index in range(4)])
    assert torch.equal(torch.cat([image for image, _, _ in network.inputs]), stored)
    assert not torch.equal(torch.cat([image for image, _, _ in other.inputs]), stored)


@pytest.mark.parametrize("gss", [False, True])
def test_passes_that_add_up_are_the_big_batch_with_dice_per_sample(subjects: list[PreparedSubject], gss: bool) -> None:
    schedule: dict[str, Any] = {"gss": gss, "baseline_epochs": 0, "epochs": 2, "batch_size": 4, "learning_rate": 1e-3}
    ends = {}
    for accumulate in (1, 2, 4):
        network = voxelwise()
        _, listener = run(subjects, network, dice="per-sample", accumulate=accumulate, **schedule)
        ends[accumulate] = weights(network)
        assert {len(image) for image, _, _ in network.inputs} == {4 // accumulate}
        assert listener.terms[0]["gss"] == pytest.approx(0, abs=0) or gss
    for accumulate in (2, 4):
        for own, expected in zip(ends[accumulate], ends[1], strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=2e-6)


def test_with_the_published_dice_passes_differ_from_the_big_batch(subjects: list[PreparedSubject]) -> None:
    schedule: dict[str, Any] = {"gss": False, "epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    first, _ = run(subjects, voxelwise(), **schedule)
    second, _ = run(subjects, voxelwise(), accumulate=4, **schedule)
    pairs = zip(weights(first.network), weights(second.network), strict=True)
    assert max(float((a - b).abs().max()) for a, b in pairs) > 1e-5


def test_the_average_follows_the_weights(subjects: list[PreparedSubject]) -> None:
    state, _ = run(subjects, voxelwise(), gss=False, epochs=3, learning_rate=0.05, ema=0.5)
    plain, _ = run(subjects, voxelwise(), gss=False, epochs=3, learning_rate=0.05)
    assert state.average is not None
    assert state.evaluated is state.average.network
    assert plain.evaluated is plain.network
    assert equal(weights(state.network), weights(plain.network))
    assert not equal(weights(state.evaluated), weights(state.network))


LONG: dict[str, Any] = {"learning_rate": 0.01, "ema": 0.9, "gss_warmup": 1, "gss_ramp": 1}


def assert_goes_on_to_the_bit(
    subjects: list[PreparedSubject],
    fresh: Callable[[int], SegmentationNetwork],
    whole: tuple[TrainingState, Listener],
    stop_after: int,
    **options: Any,
) -> None:
    first = Listener(stop_after)
    with pytest.raises(StoppedError):
        run(subjects, fresh(0), first, **options)
    torch.manual_seed(99)
    resumed, second = run(subjects, fresh(1), saved=first.saved, **options)
    expected, heard = whole
    assert equal(weights(resumed.network), weights(expected.network))
    assert equal(weights(resumed.evaluated), weights(expected.evaluated))
    assert [*first.fetched, *second.fetched] == heard.fetched
    assert [*first.positions, *second.positions] == heard.positions
    assert [*first.terms, *second.terms] == heard.terms


def test_it_goes_on_to_the_bit_from_any_step(subjects: list[PreparedSubject]) -> None:
    """Across epochs, stages and readings of the scalars."""
    options = {**LONG, "baseline_epochs": 2, "epochs": 2, "steps_per_epoch": 3}
    whole = run(subjects, voxelwise(0), **options)
    for stop_after in range(1, 12):
        assert_goes_on_to_the_bit(subjects, voxelwise, whole, stop_after, **options)


def test_what_a_network_draws_goes_on_too(subjects: list[PreparedSubject]) -> None:
    """U-HVED draws from PyTorch's own generator."""
    crop = (16, 16, 16)

    def fresh(seed: int) -> SegmentationNetwork:
        torch.manual_seed(seed)
        return build_network("uhved", 4, crop_size=crop, width=2)

    options = {**LONG, "baseline_epochs": 1, "epochs": 1, "steps_per_epoch": 3, "crop": crop, "batch_size": 1}
    assert_goes_on_to_the_bit(subjects, fresh, run(subjects, fresh(0), **options), 4, **options)
