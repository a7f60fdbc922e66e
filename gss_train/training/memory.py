"""How much memory a training is expected to take, by measurements, and which settings take less."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from gss_train.common import Triple, UserError, amount, to_triple
from gss_train.data import MODALITIES, MODALITY_SUBSETS
from gss_train.inference import pick_precision
from gss_train.models import NETWORKS
from gss_train.training.plan import TrainingPlan

# Float32: weight, gradient and Adam's three moments (amsgrad).
_BYTES_PER_PARAMETER = 20
_BYTES_PER_AVERAGED_PARAMETER = 4
_FLOAT_BYTES = 4
# What no tensor is. On a card: workspaces of cuDNN and gaps of the allocator; a guess, as no one has measured them.
# On a CPU by how much the growth of resident memory, `benchmarks.network_steps.resident_growth`, exceeded the tensors
# with 1 and 4 crops of 48^3, 0.33 and 0.80 GB for U-HVED, and no less than that for RFNet with 4, 0.66 GB.
_CARD_SHARE, _CARD_BYTES = 0.1, 0.5e9
_CPU_BYTES_PER_VOXEL, _CPU_BYTES = 1500, 0.2e9
_PREDICTIONS_OF_A_VOTE = len(MODALITIES) + 2
# Where the memory ran full all the same: of what was expected above the least that any settings take.
_SAFE_SHARE = 0.75
_MOST_REMEDIES = 3


class StepMemory(NamedTuple):
    """What is allocated besides parameters, gradients and moments.

    Attributes:
        bytes_per_voxel: of a crop.
        fixed_mb: besides, in 1e6 bytes.
    """

    bytes_per_voxel: int
    fixed_mb: float


# By network, activation checkpointing and 16 bits: tensors allocated at most in a step with GSS of one crop, published
# width, C = 4, on a CPU, a line through crops of 32^3 and 48^3 (mmFormer: 48^3 and 64^3);
# `benchmarks.memory.peak_extra_bytes` of `benchmarks.network_steps.training_step`.
MEASURED = {
    ("rfnet", False, False): StepMemory(5635, 6.8),
    ("rfnet", False, True): StepMemory(3004, 24.0),
    ("rfnet", True, False): StepMemory(2276, 37.7),
    ("rfnet", True, True): StepMemory(1382, 38.7),
    ("mmformer", False, False): StepMemory(1839, 66.2),
    ("mmformer", False, True): StepMemory(1055, 96.5),
    ("mmformer", True, False): StepMemory(917, 161.5),
    ("mmformer", True, True): StepMemory(499, 132.0),
    ("robustseg", False, False): StepMemory(9496, 69.5),
    ("robustseg", False, True): StepMemory(5124, 116.4),
    ("robustseg", True, False): StepMemory(2764, 121.9),
    ("robustseg", True, True): StepMemory(1671, 105.2),
    ("uhved", False, False): StepMemory(2497, 0.0),
    ("uhved", False, True): StepMemory(1598, 2.6),
    ("uhved", True, False): StepMemory(992, 5.1),
    ("uhved", True, True): StepMemory(920, 4.1),
}
# Likewise a window of an evaluation with the vote: encoders, modalities' decoders and one fusion, without gradients.
EVALUATED = {
    ("rfnet", False, False): StepMemory(1736, 1.8),
    ("rfnet", False, True): StepMemory(868, 0.9),
    ("rfnet", True, False): StepMemory(1332, 1.8),
    ("rfnet", True, True): StepMemory(776, 0.5),
    ("mmformer", False, False): StepMemory(281, 100.7),
    ("mmformer", False, True): StepMemory(329, 0.8),
    ("mmformer", True, False): StepMemory(281, 100.7),
    ("mmformer", True, True): StepMemory(329, 0.8),
    ("robustseg", False, False): StepMemory(1480, 1.8),
    ("robustseg", False, True): StepMemory(740, 0.9),
    ("robustseg", True, False): StepMemory(1332, 1.8),
    ("robustseg", True, True): StepMemory(666, 0.9),
    ("uhved", False, False): StepMemory(975, 0.0),
    ("uhved", False, True): StepMemory(488, 0.0),
    ("uhved", True, False): StepMemory(512, 0.1),
    ("uhved", True, True): StepMemory(405, 0.0),
}


@dataclasses.dataclass(frozen=True)
class StepSize:
    """What decides over the memory of a run: of its steps, and of the whole subjects that are segmented in between.

    Attributes:
        network: its name.
        width: channels of one modality at the finest level.
        parameters: of the network.
        crop: voxels of a crop along each axis.
        crops: that go through the network together.
        activation_checkpointing: whether it is on.
        in_16_bits: whether the network computes in bfloat16 or float16.
        averaged: whether a moving average of the weights is kept.
        categories: C.
        volume: voxels of a whole subject along each axis; None where that is not known.
        on_card: whether it is a GPU that computes.
        passes: of a process in a step.
        batch_dice: whether all of a pass has one Dice.
        short_precision: that of 16 bits that the device has.
    """

    network: str
    width: int
    parameters: int
    crop: Triple
    crops: int
    activation_checkpointing: bool
    in_16_bits: bool
    averaged: bool = False
    categories: int = 4
    volume: Triple | None = None
    on_card: bool = False
    passes: int = 1
    batch_dice: bool = True
    short_precision: str = "bfloat16"

    @classmethod
    def of(cls, plan: TrainingPlan, network: nn.Module, volume: Triple | None) -> StepSize:
        """Of a run, its network, and what a prepared subject is expected to have along each axis."""
        options, training, crop = plan.config.network, plan.config.training, plan.config.data.crop
        # What is smaller than a window is padded.
        padded = None if volume is None else to_triple([max(pair) for pair in zip(volume, crop, strict=True)])
        return cls(
            network=options.network,
            width=options.width or NETWORKS[options.network].width,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            crop=crop,
            crops=plan.batch_plan.pass_size,
            activation_checkpointing=options.activation_checkpointing,
            in_16_bits=plan.computation.in_16_bits,
            averaged=training.ema is not None,
            categories=plan.dataset.num_categories,
            volume=padded,
            on_card=plan.device.type == "cuda",
            passes=plan.batch_plan.passes,
            batch_dice=training.dice == "batch",
            short_precision="bfloat16" if pick_precision("bfloat16", plan.device) == "bfloat16" else "float16",
        )

    @property
    def step_bytes(self) -> int:
        """Tensors of a step: those of the measurements at published width, in proportion to voxels and channels."""
        return round(self._weights + self._measured(MEASURED, math.prod(self.crop) * self.crops))

    @property
    def evaluation_bytes(self) -> int:
        """Tensors of a validation or evaluation: of a window, and of the subject with the sums of what windows say."""
        if self.volume is None:
            return 0
        voxels = math.prod(self.volume)
        planes = voxels // self.volume[0] * self.crop[0]
        scans_and_labels = voxels * (len(MODALITIES) * _FLOAT_BYTES + len(MODALITY_SUBSETS) + 1)
        sums = _FLOAT_BYTES * self.categories * (len(MODALITY_SUBSETS) * planes + _PREDICTIONS_OF_A_VOTE * voxels)
        return round(self._weights + self._measured(EVALUATED, math.prod(self.crop)) + scans_and_labels + sums)

    @property
    def expected_bytes(self) -> int:
        """What the device is expected to have to spare, with what no tensor is."""
        tensors = max(self.step_bytes, self.evaluation_bytes)
        if self.on_card:
            return round(tensors * (1 + _CARD_SHARE) + _CARD_BYTES)
        # And a copy of all that a checkpoint has, while it is written.
        return round(tensors + self._weights + math.prod(self.crop) * self.crops * _CPU_BYTES_PER_VOXEL + _CPU_BYTES)

    @property
    def source(self) -> str:
        """How the expectation came about, for people."""
        how = f"predicted from measurements of {self.network} on a CPU"
        return f"{how}; no card has confirmed it" if self.on_card else how

    @property
    def _weights(self) -> int:
        return self.parameters * (_BYTES_PER_PARAMETER + _BYTES_PER_AVERAGED_PARAMETER * self.averaged)

    def _measured(self, table: Mapping[tuple[str, bool, bool], StepMemory], voxels: int) -> float:
        memory = table[self.network, self.activation_checkpointing, self.in_16_bits]
        share = self.width / NETWORKS[self.network].width
        # What does not grow with the crop are copies of weights, whose number goes with the square of the width.
        return memory.bytes_per_voxel * voxels * share + 1e6 * memory.fixed_mb * share**2


class _Change(NamedTuple):
    """A setting that takes less memory: flag, what it changes of a `StepSize`, and what else changes with it."""

    flag: str
    fields: Mapping[str, Any]
    caveat: str = ""


@dataclasses.dataclass(frozen=True)
class Remedy:
    """Settings that fit.

    Attributes:
        size: with them.
        flags: as on the command line.
        caveats: what is learnt otherwise than without them; nothing where that is the same but for rounding.
    """

    size: StepSize
    flags: tuple[str, ...]
    caveats: tuple[str, ...]

    def __str__(self) -> str:
        """For people."""
        caveats = f" ({'; '.join(self.caveats)})" if self.caveats else ""
        return f"{' '.join(self.flags)}: {amount(self.size.expected_bytes)}{caveats}"


def find_remedies(size: StepSize, room: float) -> list[Remedy]:
    """Settings with which no more than so many bytes are expected, those that change least first.

    They are activation checkpointing, 16 bits, and fewer crops at a time; where all of these are not enough, the
    largest crops with which some of them are. Nothing is named that does without one of its settings.

    Returns:
        Three at most; none where nothing fits.
    """
    same = _least_changes(_combinations(size, size.crop), room)
    smaller = (remedy for crop in _smaller_crops(size) for remedy in _combinations(size, crop))
    return (same or _least_changes(smaller, room))[:_MOST_REMEDIES]


def least_bytes(size: StepSize) -> int:
    """What is expected at least, whatever of these settings is taken."""
    return min(
        remedy.size.expected_bytes
        for crop in (size.crop, *_smaller_crops(size))
        for remedy in _combinations(size, crop)
    )


def _least_changes(remedies: Iterable[Remedy], room: float) -> list[Remedy]:
    """Those that fit, unless one before does with some of their settings."""
    named: list[Remedy] = []
    for remedy in remedies:
        kinds = _kinds(remedy)
        if remedy.size.expected_bytes <= room and not any(_kinds(before) <= kinds for before in named):
            named.append(remedy)
    return named


def _kinds(remedy: Remedy) -> set[str]:
    return {flag.split()[0] for flag in remedy.flags}


def _combinations(size: StepSize, crop: Triple) -> Iterator[Remedy]:
    """Of all changes, what changes least first."""
    checkpointing = _Change("--activation-checkpointing", {"activation_checkpointing": True})
    short = _Change(f"--precision {size.short_precision}", {"in_16_bits": True})
    kinds: list[list[_Change]] = [
        [] if size.activation_checkpointing else [checkpointing],
        [] if size.in_16_bits else [short],
        list(_fewer_crops(size)),
    ]
    smaller = () if crop == size.crop else (_crop_change(crop),)
    # The last is to vary slowest.
    for chosen in itertools.product(*([None, *kind] for kind in reversed(kinds))):
        changes = (*(change for change in reversed(chosen) if change is not None), *smaller)
        fields = {name: value for change in changes for name, value in change.fields.items()}
        yield Remedy(
            dataclasses.replace(size, **fields),
            tuple(change.flag for change in changes),
            tuple(change.caveat for change in changes if change.caveat),
        )


def _fewer_crops(size: StepSize) -> Iterator[_Change]:
    for divisor in range(2, size.crops + 1):
        if size.crops % divisor == 0:
            passes = size.passes * divisor
            caveat = "each pass has a Dice of its own in place of the batch's" if size.batch_dice else ""
            yield _Change(f"--accumulate {passes}", {"crops": size.crops // divisor, "passes": passes}, caveat)


def _crop_change(crop: Triple) -> _Change:
    lengths = " ".join(map(str, crop if len(set(crop)) > 1 else crop[:1]))
    return _Change(f"--crop-size {lengths}", {"crop": crop}, "it learns from smaller crops")


def _smaller_crops(size: StepSize) -> Iterator[Triple]:
    """Crops that the network takes, from large to small, of which the longest axes are shortened first."""
    kind, (x, y, z) = NETWORKS[size.network], size.crop
    while max(x, y, z) - kind.stride >= kind.least:
        longest = max(x, y, z)
        x, y, z = (length - kind.stride if length == longest else length for length in (x, y, z))
        yield x, y, z


@contextmanager
def full_memory_explained(size: StepSize) -> Iterator[None]:
    """Turn the error of a full memory into one that says what to do.

    Raises:
        UserError: the memory is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_full_memory(error):
            raise
        least = least_bytes(size)
        clearly_less = least + _SAFE_SHARE * (size.expected_bytes - least)
        found = "; ".join(str(remedy) for remedy in find_remedies(size, clearly_less) if remedy.flags) or "none"
        raise UserError(
            f"the memory is full: {amount(size.expected_bytes)} were expected ({size.source}). Settings with which "
            f"clearly less is expected, the least change first: {found}. "
            f"({str(error).splitlines()[0]})"
        ) from error


def _is_full_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no error of its own.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
