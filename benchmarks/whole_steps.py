"""The engine's whole training step with a preset's settings, from crops in memory to changed weights, and its parts."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import network_steps
from benchmarks.baselines.objective import eager_objective
from benchmarks.baselines.segmentation_loss import eager_segmentation_loss
from gss_kernels import BRATS_2018
from gss_train.config import Config, NetworkName, PickedPreset, preset_config
from gss_train.data import augment
from gss_train.inference import arithmetic, pick_precision
from gss_train.models import SegmentationOutput
from gss_train.training import (
    GROUP_SELF_SUPPORT,
    AdamSettings,
    Computation,
    GuardedUpdate,
    Objective,
    ObjectiveTerms,
    ParallelNetwork,
    Pass,
    StepResult,
    baseline_objective,
    mask_seed,
    network_seed,
    sample_generator,
    training_step,
)

_SEED = 0


@dataclass(frozen=True)
class WholeStepSettings:
    """Of a whole training step.

    Attributes:
        network: its name.
        preset: what the other settings are taken from.
        edge: voxels of a crop along each axis.
        batch: crops.
        width: channels of one modality at the finest level; None: as published.
        gss: with the GSS loss.
        plain: with network and losses as they are formulated in `benchmarks/baselines/`.
    """

    network: NetworkName
    preset: PickedPreset
    edge: int
    batch: int
    width: int | None = None
    gss: bool = True
    plain: bool = False


class PlainObjective(Objective):
    """The objective of published training in plain PyTorch, all scans given."""

    def __call__(
        self, output: SegmentationOutput, labels: Tensor, *_arguments: object, **_options: object
    ) -> ObjectiveTerms:
        """Evaluate it; GSS draws a voxel mask of its own, and the terms of `separate` are together in `gss`."""
        assert output.separate is not None
        zero = output.regulariser.new_zeros(())
        fused = eager_segmentation_loss(output.fused, labels)
        auxiliary = zero
        for probabilities in output.auxiliary or ():
            auxiliary = auxiliary + eager_segmentation_loss(probabilities, labels, input_kind="probabilities")
        of_modalities = eager_objective(
            torch.stack(output.separate, dim=1),
            labels,
            self.groups,
            supervised_weight=self.settings.separate,
            gss_weight=self.settings.gss,
        )
        total = self.settings.fused * fused + of_modalities + self.settings.auxiliary * auxiliary + output.regulariser
        return ObjectiveTerms(total, fused, zero, auxiliary, of_modalities, output.regulariser)


class WholeStep:
    """A training step; each call takes the next one, with the same crops and new draws.

    Gradients are let go at its end rather than at the start of the next one, so that what a call takes in memory
    includes them.

    Attributes:
        network: that is trained.
        update: its optimiser.
        options: that it is made from.
        settings: how a step is computed.
    """

    def __init__(self, settings: WholeStepSettings, device: torch.device) -> None:
        config = preset_config(settings.preset, settings.network)
        self.options = config.training
        self.settings = Computation(
            device,
            pick_precision(config.training.precision, device),
            config.training.channels_last,
            config.augmentation.settings(),
        )
        self.network = network_steps.build(_network_settings(settings, config)).to(device).train()
        if config.training.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._call = ParallelNetwork(self.network, compiled=config.training.compile)  # type: ignore[arg-type]
        self.update = GuardedUpdate(
            self.network.parameters(),
            AdamSettings.of(config.training),
            device,
            clip_gradient=config.training.clip_gradient,
        )
        objective = GROUP_SELF_SUPPORT if settings.gss else baseline_objective(config.training)
        self.objective = (PlainObjective if settings.plain else Objective)(BRATS_2018, objective)
        self._steps = itertools.count()
        self._crops = _made_up_crops(settings.batch, settings.edge, pinned=device.type == "cuda")

    def __call__(self) -> StepResult:
        with arithmetic(self.settings.precision):
            result = training_step(self._call, [self._draw()], self.objective, self.update, self.settings)
        self.update.forget_gradients()
        return result

    def augmentation(self) -> tuple[Tensor, Tensor]:
        """The crops' way to the device and their augmentation."""
        part = self._draw()
        image, label = (tensor.to(self.settings.device, non_blocking=True) for tensor in (part.image, part.label))
        return augment(image, label, part.generators, self.settings.augmentation)

    def losses(self) -> None:
        """Forward and backward pass of the objective, of what the network gave once."""
        outputs, labels, available = self._outputs
        total = self.objective(outputs, labels, available, mask_seed(_SEED, next(self._steps))).total
        torch.autograd.grad(total, _leaves(outputs), allow_unused=True)

    @functools.cached_property
    def _outputs(self) -> tuple[SegmentationOutput, Tensor, Tensor]:
        """Of the network, without what led to them; labels; which scans exist."""
        image, labels = self.augmentation()
        device = self.settings.device
        fused_modalities, available = self._crops.fused_modalities.to(device), self._crops.available.to(device)
        with self.settings.autocast():
            own = self._call(image, fused_modalities, available)
        leaves = SegmentationOutput(
            _leaf(own.fused),
            None if own.separate is None else tuple(map(_leaf, own.separate)),
            None if own.auxiliary is None else tuple(map(_leaf, own.auxiliary)),
            _leaf(own.regulariser),
        )
        return leaves, labels, available

    def _draw(self) -> Pass:
        step = next(self._steps)
        return self._crops._replace(
            generators=[sample_generator(_SEED, step, sample) for sample in range(len(self._crops.image))],
            mask_seed=mask_seed(_SEED, step),
            network_seed=network_seed(_SEED, step, 0),
        )


def _network_settings(settings: WholeStepSettings, config: Config) -> network_steps.StepSettings:
    variant: network_steps.Variant = "plain"
    if not settings.plain:
        variant = "lean, checkpointing" if config.network.activation_checkpointing else "lean"
    return network_steps.StepSettings(
        settings.network, variant, settings.edge, settings.width, BRATS_2018.num_categories, settings.batch
    )


def _made_up_crops(batch: int, edge: int, *, pinned: bool) -> Pass:
    """Noise, as the loader gives crops to the training process."""
    generator = torch.Generator().manual_seed(_SEED)
    space = (edge, edge, edge)
    image = torch.randn((batch, 4, *space), generator=generator).half()
    labels = torch.randint(BRATS_2018.num_categories, (batch, *space), generator=generator, dtype=torch.uint8)
    available = torch.ones(batch, 4, dtype=torch.bool)
    fused_modalities = torch.tensor([[True, False, True, True]]).repeat(batch, 1)
    image, labels, available, fused_modalities, subjects = (
        tensor.pin_memory() if pinned else tensor
        for tensor in (image, labels, available, fused_modalities, torch.arange(batch))
    )
    return Pass(image, labels, available, fused_modalities, subjects, (), mask_seed=0, network_seed=0, first_sample=0)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _leaves(output: SegmentationOutput) -> list[Tensor]:
    return [output.fused, *(output.separate or ()), *(output.auxiliary or ()), output.regulariser]
