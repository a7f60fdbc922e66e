"""From crops to the passes of a step: which process takes which samples, and what is drawn for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from gss_train.common import ALONE, Processes, UserError, ignore_interrupts
from gss_train.data import Crop, SubsetDraw, TrainingCrops, draw_subsets
from gss_train.training.draws import mask_seed, network_seed, sample_generator


class Pass(NamedTuple):
    """The samples of one forward and backward pass, on the host, and what was drawn for them.

    Attributes:
        image: `[B, 4, D, H, W]` float16 or float32.
        label: `[B, D, H, W]` uint8.
        available: `[B, 4]` bool, the scans that exist.
        fused_modalities: `[B, 4]` bool, those that the fusion sees.
        subjects: `[B]` int64, which subjects they are.
        generators: of each sample's augmentation.
        mask_seed: of the GSS loss's voxel mask, for the whole batch.
        network_seed: of what the network draws.
        first_sample: number of the first one in the whole batch.
    """

    image: Tensor
    label: Tensor
    available: Tensor
    fused_modalities: Tensor
    subjects: Tensor
    generators: Sequence[torch.Generator]
    mask_seed: int
    network_seed: int
    first_sample: int


@dataclass(frozen=True)
class BatchPlan:
    """How the samples of a step are divided: evenly, in order, among the processes, and by each into passes.

    What a sample is, and what is drawn for it, depends on its number in the whole batch alone: not on the division.

    Attributes:
        batch_size: samples in a step, of all processes.
        passes: forward and backward passes of each process.
        steps: in an epoch.
        processes: that train together.

    Raises:
        UserError: the samples cannot be divided evenly.
    """

    batch_size: int
    passes: int
    steps: int
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        if self.batch_size % (self.passes * self.processes.size):
            raise UserError(
                f"--batch-size: got {self.batch_size}, need a multiple of {self.passes * self.processes.size}: "
                f"{self.processes.size} processes with {self.passes} passes each (--accumulate)"
            )

    @property
    def pass_size(self) -> int:
        """Samples in a pass."""
        return self.batch_size // (self.passes * self.processes.size)

    def first_sample(self, number: int) -> int:
        """Where a pass of this process begins in the batch."""
        return (self.processes.rank * self.passes + number) * self.pass_size


class TrainingBatches:
    """The steps of any epoch, from any step on.

    Args:
        crops: at least `plan.steps * plan.batch_size` in an epoch.
        plan: how they are divided.
        seed: of all that is drawn for them.
        subset_draw: how the modalities that the fusion sees are drawn, as `gss_train.data.draw_subsets` names it.
        workers: loader processes.
        pin_memory: for copies to a GPU that nobody waits for.
    """

    def __init__(
        self,
        crops: TrainingCrops,
        plan: BatchPlan,
        seed: int,
        *,
        subset_draw: SubsetDraw = "subset",
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.crops = crops
        self.plan = plan
        self.seed = seed
        self.subset_draw: SubsetDraw = subset_draw
        self._indices = _Indices(plan)
        self._loader = DataLoader(
            crops,
            batch_sampler=self._indices,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=ignore_interrupts,
        )

    def steps(self, epoch: int, first_step: int = 0) -> Iterator[list[Pass]]:
        """This process's passes of each step.

        Args:
            epoch: 0 for the first of the run.
            first_step: of the epoch, to begin with.
        """
        self.crops.set_epoch(epoch)
        self._indices.first_step = first_step
        crops = iter(self._loader)
        for step in range(first_step, self.plan.steps):
            yield [self._draw(next(crops), epoch, step, number) for number in range(self.plan.passes)]

    def whole_step(self, epoch: int, step: int) -> Pass:
        """All samples of a step of an epoch as one pass, made again."""
        self.crops.set_epoch(epoch)
        indices = range(step * self.plan.batch_size, (step + 1) * self.plan.batch_size)
        samples = [self.crops[index] for index in indices]
        crops = Crop(**{key: torch.stack([sample[key] for sample in samples]) for key in Crop.__annotations__})  # type: ignore[literal-required, typeddict-item]
        return self._draw(crops, epoch, step, number=0, first_sample=0)

    def _draw(self, crops: Crop, epoch: int, step: int, number: int, first_sample: int | None = None) -> Pass:
        first = self.plan.first_sample(number) if first_sample is None else first_sample
        step_of_run = epoch * self.plan.steps + step
        generators = [
            sample_generator(self.seed, step_of_run, first + sample) for sample in range(len(crops["available"]))
        ]
        subsets = [
            draw_subsets(available[None], generator, self.subset_draw)
            for available, generator in zip(crops["available"], generators, strict=True)
        ]
        return Pass(
            image=crops["image"],
            label=crops["label"],
            available=crops["available"],
            fused_modalities=torch.cat(subsets),
            subjects=crops["subject"],
            generators=generators,
            mask_seed=mask_seed(self.seed, step_of_run),
            network_seed=network_seed(self.seed, step_of_run, first),
            first_sample=first,
        )


class _Indices(Sampler[list[int]]):
    """The crops of this process's passes, from a step of the epoch on."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan = plan
        self.first_step = 0

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.plan.steps):
            for number in range(self.plan.passes):
                first = step * self.plan.batch_size + self.plan.first_sample(number)
                yield list(range(first, first + self.plan.pass_size))

    def __len__(self) -> int:
        return (self.plan.steps - self.first_step) * self.plan.passes
