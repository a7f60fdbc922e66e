from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from gss_kernels import BRATS_2018
from gss_train.config import TrainingOptions
from gss_train.data import PUBLISHED_AUGMENTATION, AugmentationSettings, PreparedSubject, TrainingCrops
from gss_train.data.prepared import VOXEL_DTYPE, Metadata, PreparationSettings
from gss_train.engine.training import EpochRecord, Stage, TrainingError, train
from gss_train.models import SegmentationNetwork, SegmentationOutput, build_network

CROP = (8, 8, 8)


class VoxelwiseNetwork(SegmentationNetwork):
    """Classifies every voxel by itself, with one layer for each kind of prediction; remembers its inputs.

    Args:
        poisoned_from: number of the call from which on the objective is NaN.
    """

    def __init__(self, poisoned_from: int | None = None) -> None:
        super().__init__()
        self.fusion = nn.Conv3d(4, 4, 1)
        self.deep = nn.Conv3d(4, 4, 1)
        self.separate = nn.Conv3d(1, 4, 1)
        self.poisoned_from = poisoned_from
        self.inputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(
        self, x: Tensor, fused_modalities: Tensor, available: Tensor | None = None, per_modality: bool | None = None
    ) -> SegmentationOutput:
        assert available is not None
        self.inputs.append((x.clone(), fused_modalities.clone(), available.clone()))
        kept = x * fused_modalities[:, :, None, None, None]
        poisoned = self.poisoned_from is not None and len(self.inputs) >= self.poisoned_from
        return SegmentationOutput(
            self.fusion(kept),
            tuple(self.separate(scan) for scan in x.split(1, dim=1)),
            (torch.softmax(self.deep(kept), dim=1),),
            x.new_tensor(torch.nan if poisoned else 0.0),
        )

    def encode(self, x: Tensor, available: Tensor | None = None) -> tuple[Tensor, ...]:
        return (x,)

    def fuse(self, features: tuple[Tensor, ...], fused_modalities: Tensor) -> Tensor:
        return self.fusion(features[0] * fused_modalities[:, :, None, None, None])


def make_subject(folder: Path, name: str, seed: int, size: int) -> PreparedSubject:
    """A cube of four slabs, one per category, each bright in a modality of its own."""
    generator = np.random.default_rng(seed)
    voxels = np.zeros((size, size, size), VOXEL_DTYPE)
    voxels["label"] = np.arange(size) * 4 // size
    voxels["image"] = 2 * np.eye(4)[voxels["label"]] + 0.3 * generator.standard_normal((size, size, size, 4))
    np.save(folder / f"{name}.npy", voxels)
    metadata = Metadata(
        name=name,
        grade=None,
        shape=voxels.shape,
        original_shape=voxels.shape,
        box=((0, size),) * 3,
        padding=((0, 0),) * 3,
        affine=tuple(tuple(row) for row in np.eye(4).tolist()),
        spacing=(1.0, 1.0, 1.0),
        orientation="LPS",
        available=(True,) * 4,
        has_label=True,
        mean=(0.0,) * 4,
        std=(1.0,) * 4,
        background=(0.0,) * 4,
        sources={},
        digests={},
        warnings=(),
        settings=PreparationSettings(1, "brats2018", (0, 1, 2, 4), voxels.shape, voxels.shape),
        tumour_voxels=(),
    )
    return PreparedSubject(name, folder / f"{name}.npy", metadata)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> list[PreparedSubject]:
    folder = tmp_path_factory.mktemp("prepared")
    return [make_subject(folder, f"subject-{number}", number, 20) for number in range(3)]


def run(
    subjects: list[PreparedSubject],
    network: SegmentationNetwork,
    on_step: Callable[[Stage, int, float | None], None] = lambda *_: None,
    on_epoch: Callable[[Stage, EpochRecord, torch.optim.Optimizer], None] = lambda *_: None,
    seed: int = 0,
    workers: int = 0,
    crop: tuple[int, int, int] = CROP,
    augmentation: AugmentationSettings = PUBLISHED_AUGMENTATION,
    **changes: Any,
) -> list[EpochRecord]:
    """Train and return the records of the epochs."""
    options = TrainingOptions(**{"steps_per_epoch": 2, "fusion_warmup_epochs": 0, "rounds": 1, **changes})
    records: list[EpochRecord] = []

    def collect(stage: Stage, record: EpochRecord, optimiser: torch.optim.Optimizer) -> None:
        records.append(record)
        on_epoch(stage, record, optimiser)

    train(
        network,
        TrainingCrops(subjects, crop, options.batch_size * options.steps_per_epoch, seed),
        BRATS_2018,
        options,
        workers=workers,
        device=torch.device("cpu"),
        seed=seed,
        augmentation=augmentation,
        on_step=on_step,
        on_epoch=collect,
    )
    return records


def voxelwise(seed: int = 0, poisoned_from: int | None = None) -> VoxelwiseNetwork:
    torch.manual_seed(seed)
    return VoxelwiseNetwork(poisoned_from)


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

    def on_epoch(_stage: Stage, _record: EpochRecord, optimiser: torch.optim.Optimizer) -> None:
        assert type(optimiser) is torch.optim.Adam
        (group,) = optimiser.param_groups
        assert (group["amsgrad"], group["weight_decay"], group["betas"]) == (True, 3e-4, (0.9, 0.999))
        assert all("max_exp_avg_sq" in state for state in optimiser.state.values())
        seen.append(len(group["params"]))

    network = voxelwise()
    run(subjects, network, on_epoch=on_epoch, baseline_epochs=1, epochs=1, weight_decay=3e-4)
    assert seen == [len(list(network.parameters()))] * 2


def test_every_stage_has_a_fresh_optimiser_and_its_own_decay(
    subjects: list[PreparedSubject], steps: list[tuple[int, float, float]]
) -> None:
    records = run(subjects, voxelwise(), baseline_epochs=4, rounds=2, epochs=3, learning_rate=0.01)
    decays = [0.01 * (1 - epoch / length) ** 0.9 for length in (4, 3, 3) for epoch in range(length)]
    assert [record.learning_rate for record in records] == pytest.approx(decays)
    assert [rate for _, _, rate in steps] == pytest.approx(np.repeat(decays, 2).tolist())
    assert [count for _, count, _ in steps] == [*range(1, 9), *range(1, 7), *range(1, 7)]
    assert [len({identity for identity, _, _ in steps[a:b]}) for a, b in ((0, 8), (8, 14), (14, 20))] == [1, 1, 1]
    assert len({identity for identity, _, _ in steps}) == 3


def test_records_count_through_all_stages(subjects: list[PreparedSubject]) -> None:
    records = run(subjects, voxelwise(), baseline_epochs=2, rounds=2, epochs=1)
    assert [(record.stage, record.stage_epoch, record.epoch, record.step) for record in records] == [
        ("baseline", 1, 1, 2),
        ("baseline", 2, 2, 4),
        ("GSS round 1", 1, 3, 6),
        ("GSS round 2", 1, 4, 8),
    ]
    assert [record.terms["gss"] != 0 for record in records] == [False, False, True, True]


def test_a_round_starts_from_the_last_ones_weights(subjects: list[PreparedSubject]) -> None:
    network = voxelwise()
    ends: list[dict[str, Tensor]] = []

    def on_epoch(*_: object) -> None:
        ends.append({name: weight.detach().clone() for name, weight in network.named_parameters()})

    run(subjects, network, on_epoch=on_epoch, baseline_epochs=0, rounds=2, epochs=1, learning_rate=0.01)
    # Adam's first two steps move no weight by more than the learning rate each.
    assert all((ends[1][name] - ends[0][name]).abs().max() < 0.021 for name in ends[0])
    assert any(not torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_fused_prediction_does_not_count_while_it_warms_up(subjects: list[PreparedSubject]) -> None:
    network = voxelwise()
    initial = network.fusion.weight.detach().clone()
    gradients: list[float] = []
    moved: list[bool] = []

    def on_step(*_: object) -> None:
        assert network.fusion.weight.grad is not None
        gradients.append(float(network.fusion.weight.grad.abs().max()))
        moved.append(not torch.equal(network.fusion.weight, initial))

    schedule = {"gss": False, "epochs": 4, "fusion_warmup_epochs": 2, "weight_decay": 0.0}
    records = run(subjects, network, on_step=on_step, **schedule)
    assert gradients[:4] == [0.0] * 4
    assert all(gradient > 0 for gradient in gradients[4:])
    assert moved == [False] * 4 + [True] * 4
    for record in records:
        terms = record.terms
        counted = terms["separate"] + terms["auxiliary"] + (terms["fused"] if record.epoch > 2 else 0)
        assert terms["total"] == pytest.approx(counted, rel=1e-6)
        assert terms["fused"] > 0


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
    monkeypatch.setattr("gss_train.engine.training.augment", lambda image, label, *_: (image.float(), label))
    network = voxelwise()
    run(subjects, network, baseline_epochs=1, rounds=2, epochs=1)
    images = [image for image, _, _ in network.inputs]
    assert all(image.dtype == torch.float32 and image.shape == (2, 4, *CROP) for image in images)
    assert all(not torch.equal(a, b) for index, a in enumerate(images) for b in images[:index])


@pytest.mark.parametrize(("steps_per_epoch", "steps_reported"), [(4, 4), (15, 9)])
def test_an_objective_that_is_not_finite_stops_and_says_what_to_do(
    subjects: list[PreparedSubject], steps_per_epoch: int, steps_reported: int
) -> None:
    reported: list[int] = []
    finished: list[EpochRecord] = []
    with pytest.raises(TrainingError, match=r"objective became nan.*--learning-rate.*NaN and infinite voxels"):
        run(
            subjects,
            voxelwise(poisoned_from=3),
            on_step=lambda _stage, step, _loss: reported.append(step),
            on_epoch=lambda _stage, record, _optimiser: finished.append(record),
            gss=False,
            epochs=1,
            steps_per_epoch=steps_per_epoch,
        )
    assert reported == [*range(1, steps_reported + 1)]
    # No checkpoint is written of such an epoch.
    assert finished == []


def test_the_loss_is_read_every_tenth_step(subjects: list[PreparedSubject]) -> None:
    losses: dict[int, float | None] = {}
    (record,) = run(
        subjects,
        voxelwise(),
        on_step=lambda _stage, step, loss: losses.update({step: loss}),
        gss=False,
        epochs=1,
        steps_per_epoch=20,
    )
    assert sorted(losses) == [*range(1, 21)]
    read = {step: loss for step, loss in losses.items() if loss is not None}
    assert sorted(read) == [10, 20]
    assert sum(read.values()) / 2 == pytest.approx(record.terms["total"])


def test_the_loss_falls(subjects: list[PreparedSubject]) -> None:
    torch.manual_seed(0)
    network = build_network("rfnet", 4, crop_size=(16, 16, 16), width=4)
    schedule = {"baseline_epochs": 2, "epochs": 2, "steps_per_epoch": 6, "learning_rate": 0.01}
    baseline, late_baseline, gss, late_gss = run(subjects, network, crop=(16, 16, 16), **schedule)
    assert late_baseline.terms["total"] < 0.95 * baseline.terms["total"]
    assert late_gss.terms["total"] < gss.terms["total"]


def final_weights(
    subjects: list[PreparedSubject], default_seed: int = 0, **changes: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights after a short run with some seed of PyTorch's own generator, and the scans that it trained on."""
    network = voxelwise()
    torch.manual_seed(default_seed)
    run(subjects, network, baseline_epochs=1, epochs=1, steps_per_epoch=3, learning_rate=0.01, **changes)
    return [weight.detach() for weight in network.parameters()], [image for image, _, _ in network.inputs]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_seed_repeats_training_whatever_pytorchs_own_generator_holds(subjects: list[PreparedSubject]) -> None:
    weights, images = final_weights(subjects, default_seed=5, seed=1)
    again, images_again = final_weights(subjects, default_seed=6, seed=1)
    assert equal(weights, again)
    assert equal(images, images_again)
    other, other_images = final_weights(subjects, seed=2)
    assert not equal(weights, other)
    assert not equal(images, other_images)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_loader_processes_change_nothing(subjects: list[PreparedSubject]) -> None:
    weights, images = final_weights(subjects, workers=0)
    weights_with_workers, images_with_workers = final_weights(subjects, workers=2)
    assert equal(images, images_with_workers)
    assert equal(weights, weights_with_workers)


def test_bfloat16_holds_in_the_network_alone(subjects: list[PreparedSubject]) -> None:
    """The forward pass computes in 16 bits; weights stay in 32, and losses are what they are but for rounding."""
    seen: list[torch.dtype] = []
    network = voxelwise()
    network.fusion.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    rounded = run(subjects, network, baseline_epochs=1, epochs=1, precision="bfloat16")
    exact = run(subjects, voxelwise(), baseline_epochs=1, epochs=1)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    for one, other in zip(rounded, exact, strict=True):
        assert one.terms != other.terms
        assert one.terms == pytest.approx(other.terms, rel=0.02)


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
