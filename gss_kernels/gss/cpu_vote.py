"""The vote on a chunk of voxels."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gss_kernels.gss.call import GSSCall
from gss_kernels.settings import GSSSettings


@dataclass(frozen=True)
class Chunk:
    """Some voxels of one sample and the modalities it has."""

    sample: int
    voxels: slice
    modalities: list[int]

    @property
    def learns(self) -> bool:
        """Whether the sample has the two modalities it takes to teach each other."""
        return len(self.modalities) >= 2


@dataclass(frozen=True)
class Exponentials:
    """`[m, C, n]` for the m present modalities; the sums over C are `[m, n]`.

    `student_log` is `log q`, `student` is `q`; `sharp / sharp_sum` would be `p`.
    """

    sharp: Tensor
    sharp_sum: Tensor
    student_log: Tensor
    student: Tensor

    def probabilities(self) -> Iterator[Tensor]:
        """P of each modality, `[C, n]`."""
        for sharp, total in zip(self.sharp, self.sharp_sum, strict=True):
            yield sharp / total


def exponentials_of(z: Tensor, settings: GSSSettings) -> Exponentials:
    """From logits `[m, C, n]`, in the dtype of the computation."""
    shifted = z - z.amax(dim=1, keepdim=True)
    student_log = shifted * (1 / settings.temperature)
    student = student_log.exp()
    if settings.squarings:
        # A power of the tempered exponential is cheaper than another exponential.
        sharp = torch.mul(student, student, out=shifted)
        for _ in range(settings.squarings - 1):
            sharp.mul_(sharp)
    else:
        sharp = shifted.exp_()
    student_sum = student.sum(dim=1, keepdim=True)
    return Exponentials(
        sharp=sharp,
        sharp_sum=sharp.sum(dim=1),
        student_log=student_log.sub_(student_sum.log()),
        student=student.mul_(student_sum.reciprocal_()),
    )


def without_nan(exponentials: Exponentials) -> tuple[Exponentials, Tensor | None]:
    """The same with 0 instead of NaN, and where that was, `[m, n]` bool, None if nowhere."""
    if not math.isnan(float(exponentials.sharp_sum.sum())):
        return exponentials, None
    invalid = exponentials.sharp_sum.isnan()
    cleaned = [values.masked_fill(invalid[:, None], 0) for values in (exponentials.sharp, exponentials.student_log)]
    return (
        Exponentials(
            sharp=cleaned[0],
            sharp_sum=exponentials.sharp_sum.masked_fill(invalid, 1),
            student_log=cleaned[1],
            student=exponentials.student.masked_fill(invalid[:, None], 0),
        ),
        invalid,
    )


def soft_target(exponentials: Exponentials, chunk: Chunk, call: GSSCall) -> Tensor:
    """Soft target of the chunk, `[C, n]`."""
    settings = call.settings
    bars = bars_of(exponentials, settings)
    minimum = exponentials.student.amin(dim=0)
    target = torch.empty_like(minimum)
    for category, indices in enumerate(call.leaders):
        students = exponentials.student[:, category].unbind()
        confident_leaders, confident_members = confident_voxels(exponentials, chunk, category, indices, bars)
        by_members = _members_vote(
            confident_members,
            [student for student, m in zip(students, chunk.modalities, strict=True) if m not in indices],
            minimum[category],
            counts=settings.semantics == "paper" or len(confident_leaders) != 1,
        )
        leaders = [student for student, m in zip(students, chunk.modalities, strict=True) if m in indices]
        target[category] = _leaders_vote(confident_leaders, leaders, by_members, settings)
    total = target.sum(dim=0)
    return target.div_(total.add_(total == 0))


def bars_of(exponentials: Exponentials, settings: GSSSettings) -> tuple[Tensor, Tensor]:
    """What a sharp exponential of a leader and of a member has to exceed, `[m, n]` each: p > tau without a division."""
    return settings.leader_threshold * exponentials.sharp_sum, settings.member_threshold * exponentials.sharp_sum


def confident_voxels(
    exponentials: Exponentials, chunk: Chunk, category: int, leaders: tuple[int, ...], bars: tuple[Tensor, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Which voxels each leader and each member of a category is confident of, `[n]`, 1 or 0.

    Floats, not booleans: products of 0 and 1 and interpolation are much faster than logic and selection.
    """
    result: tuple[list[Tensor], list[Tensor]] = ([], [])
    for row, modality in enumerate(chunk.modalities):
        kind = 0 if modality in leaders else 1
        sharp = exponentials.sharp[row, category]
        result[kind].append(torch.gt(sharp, bars[kind][row], out=torch.empty_like(sharp)))
    return result


def every(confident: list[Tensor]) -> Tensor:
    """1 where all are confident, `[n]`."""
    return functools.reduce(torch.mul, confident)


def some(confident: list[Tensor]) -> Tensor:
    """1 where one is confident at least, `[n]`."""
    return functools.reduce(torch.maximum, confident)


def _members_vote(confident: list[Tensor], students: list[Tensor], minimum: Tensor, *, counts: bool) -> Tensor:
    """What the members decide, `[n]`: where all are confident their mean, 0 if it does not count; else the minimum."""
    if not students:
        return minimum
    mean = functools.reduce(torch.add, students) / len(students) if counts else torch.zeros_like(minimum)
    return torch.lerp(minimum, mean, every(confident))


def _leaders_vote(confident: list[Tensor], students: list[Tensor], otherwise: Tensor, settings: GSSSettings) -> Tensor:
    """What the leaders decide where one is confident at least, `[n]`; `otherwise` elsewhere."""
    if not students:
        return otherwise
    if len(students) == 1:
        return torch.lerp(otherwise, students[0], confident[0])
    highest = functools.reduce(torch.maximum, students)
    lowest = functools.reduce(torch.minimum, students)
    blend = torch.lerp(highest, lowest, settings.leader_blend)
    agreed = highest + blend if settings.semantics == "released" else highest
    result = torch.lerp(otherwise, blend, some(confident))
    return torch.lerp(result, agreed, every(confident))
