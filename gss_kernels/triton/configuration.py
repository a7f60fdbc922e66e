"""How many voxels, threads and programs a launch gets.

No autotuner runs by itself: a first step takes no longer than compilation, and the same call always sums in the same
order. The numbers follow from the compiled kernels' resources, see docs/kernels.md; `tuned` tries others if asked to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KernelName = Literal["forward", "backward", "segmentation_forward", "segmentation_backward"]


@dataclass(frozen=True)
class Configuration:
    """Of one kernel."""

    voxels_per_thread: int  # two make 64-bit loads of float32 logits, at the price of registers
    num_warps: int = 4  # of a program
    programs_per_multiprocessor: int = 4  # for kernels whose programs walk over blocks

    def block(self, threads_per_warp: int) -> int:
        """Voxels of a block."""
        return threads_per_warp * self.num_warps * self.voxels_per_thread


@dataclass(frozen=True)
class ConfigurationTable:
    """Configurations by kernel.

    Attributes:
        forward: of the GSS loss's forward pass.
        forward_heavy: of a forward pass with more sums than `most_sums`, as with supervision, whose registers one voxel
            per thread fills.
        backward: of the backward pass, and of the target alone.
        backward_heavy: of the same for more logits per voxel than `most_logits`.
        segmentation: of the segmentation loss of one prediction.
        most_sums: see `forward_heavy`.
        most_logits: see `backward_heavy`.
    """

    forward: Configuration = Configuration(voxels_per_thread=2, programs_per_multiprocessor=6)
    forward_heavy: Configuration = Configuration(voxels_per_thread=1)
    backward: Configuration = Configuration(voxels_per_thread=2)
    backward_heavy: Configuration = Configuration(voxels_per_thread=1)
    segmentation: Configuration = Configuration(voxels_per_thread=2, programs_per_multiprocessor=8)
    most_sums: int = 64
    most_logits: int = 24

    def of(self, kernel: KernelName, num_modalities: int, num_categories: int, *, segmented: bool) -> Configuration:
        """Of a kernel for M modalities and C categories; statistics do not count, as they must not change the sums."""
        if kernel == "forward":
            sums = num_sums(num_modalities, num_categories, segmented=segmented, statistics=False)
            return self.forward if sums <= self.most_sums else self.forward_heavy
        if kernel == "backward":
            return self.backward if num_modalities * num_categories <= self.most_logits else self.backward_heavy
        return self.segmentation


TABLE = ConfigurationTable()


def num_sums(num_modalities: int, num_categories: int, *, segmented: bool, statistics: bool) -> int:
    """Sums that the forward pass keeps; see `Sums` of its kernel."""
    entries = num_modalities * num_categories
    own, labelled = num_modalities + 2 * entries, 3 * entries + num_categories
    return own + segmented * labelled + statistics * (3 * num_categories + num_modalities)
