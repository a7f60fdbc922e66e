"""The GSS loss once more, one voxel and one Python float at a time, to compare the backends with.

Written from the definition alone: targets, losses, the analytic gradient, the random mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Leaders = Sequence[Sequence[int]]

_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Settings:
    """The hyper-parameters, under the names of the public API."""

    temperature: float = 8.0
    leader_threshold: float = 0.75
    member_threshold: float = 0.85
    leader_blend: float = 0.3
    semantics: str = "paper"
    divergence: str = "kl"
    class_weighting: bool = True
    clamp: float = 0.005


@dataclass(frozen=True)
class Answer:
    """Losses `[B, M]`, d losses[b, m] / d logits[b, m] `[B, M, C, *spatial]`, and target `[B, C, *spatial]`."""

    losses: Array
    gradient: Array
    target: Array

    def mean(self) -> float:
        """The loss under reduction "mean"."""
        return float(self.losses.sum(axis=1).mean())

    def gradient_under(self, upstream: Array) -> Array:
        """The gradient of `(upstream * losses).sum()`."""
        extra = self.gradient.ndim - 2
        return self.gradient * upstream.reshape(*upstream.shape, *[1] * extra)


def softmax(values: Sequence[float], temperature: float = 1.0) -> list[float]:
    highest = max(values)
    powers = [math.exp((value - highest) / temperature) for value in values]
    total = sum(powers)
    return [power / total for power in powers]


def vote(
    sharp: dict[int, float], tempered: dict[int, float], leaders: Sequence[int], settings: Settings
) -> tuple[str, float]:
    """Route and un-normalised target of one category; the dictionaries hold the available modalities."""
    lead = [m for m in sharp if m in leaders]
    members = [m for m in sharp if m not in leaders]
    confident = [m for m in lead if sharp[m] > settings.leader_threshold]
    released = settings.semantics == "released"
    if confident:
        highest, lowest = max(tempered[m] for m in lead), min(tempered[m] for m in lead)
        moved = settings.leader_blend * (highest - lowest)
        if len(confident) < len(lead):
            return "split", highest - moved
        if released and len(lead) >= 2:
            return "agree", 2 * highest - moved
        return "agree", highest
    if members and all(sharp[m] > settings.member_threshold for m in members):
        if released and len(lead) == 1:
            return "members", 0.0
        return "members", sum(tempered[m] for m in members) / len(members)
    return "minimum", min(tempered.values())


def voxel_target(logits: dict[int, list[float]], leaders: Leaders, settings: Settings) -> list[float]:
    """Normalised target of one voxel from the available modalities' logits."""
    sharp = {m: softmax(z) for m, z in logits.items()}
    tempered = {m: softmax(z, settings.temperature) for m, z in logits.items()}
    votes = [
        vote({m: p[c] for m, p in sharp.items()}, {m: q[c] for m, q in tempered.items()}, leading, settings)[1]
        for c, leading in enumerate(leaders)
    ]
    total = sum(votes)
    return [0.0 if total == 0 else value / total for value in votes]


def gss(
    logits: Array,
    leaders: Leaders,
    settings: Settings,
    keep: BoolArray | None = None,
    available: BoolArray | None = None,
) -> Answer:
    """The whole answer for logits `[B, M, C, *spatial]`, `keep` `[B, M, *spatial]`, `available` `[B, M]`."""
    B, M, C = logits.shape[:3]
    flat = logits.reshape(B, M, C, -1)
    N = flat.shape[3]
    kept = np.ones((B, M, N), bool) if keep is None else keep.reshape(B, M, N)
    losses, gradient, target = np.zeros((B, M)), np.zeros(flat.shape), np.zeros((B, C, N))
    for b in range(B):
        present = [m for m in range(M) if available is None or available[b, m]]
        if len(present) < 2:
            continue
        voxels = [{m: [float(flat[b, m, c, v]) for c in range(C)] for m in present} for v in range(N)]
        target[b] = np.array([voxel_target(voxel, leaders, settings) for voxel in voxels]).T
        for m in present:
            own = [voxel[m] for voxel in voxels]
            losses[b, m], gradient[b, m] = _modality(own, target[b], kept[b, m], settings)
    return Answer(losses, gradient.reshape(logits.shape), target.reshape(B, C, *logits.shape[3:]))


def _modality(logits: list[list[float]], target: Array, kept: BoolArray, settings: Settings) -> tuple[float, Array]:
    """One modality of one sample: its loss and gradient `[C, N]`."""
    C, N = target.shape
    students = [v for v in range(N) if kept[v]]
    weight = [1.0] * C
    if settings.class_weighting and students:
        weight = [1 - sum(float(target[c, v]) for v in students) / len(students) for c in range(C)]
    loss, gradient = 0.0, np.zeros((C, N))
    for v in students:
        q = softmax(logits[v], settings.temperature)
        t = [float(value) for value in target[:, v]]
        for c in range(C):
            entropy = t[c] * math.log(t[c]) if settings.divergence == "kl" and t[c] > 0 else 0.0
            loss += weight[c] * (entropy - t[c] * math.log(max(q[c], settings.clamp))) / N
        pull = [weight[c] * t[c] if q[c] >= settings.clamp else 0.0 for c in range(C)]
        for c in range(C):
            gradient[c, v] = (q[c] * sum(pull) - pull[c]) / (N * settings.temperature)
    return loss, gradient


def near_threshold(
    logits: Array, leaders: Leaders, settings: Settings, available: BoolArray | None = None, margin: float = 1e-5
) -> BoolArray:
    """Voxels `[B, N]` where rounding could flip a comparison with a threshold or with the clamp."""
    B, M, C = logits.shape[:3]
    flat = logits.reshape(B, M, C, -1)
    near = np.zeros((B, flat.shape[3]), bool)
    for b, v in np.ndindex(*near.shape):
        for m in range(M):
            if available is not None and not available[b, m]:
                continue
            own = [float(value) for value in flat[b, m, :, v]]
            for c, (p, q) in enumerate(zip(softmax(own), softmax(own, settings.temperature), strict=True)):
                bar = settings.leader_threshold if m in leaders[c] else settings.member_threshold
                near[b, v] |= abs(p - bar) < margin or abs(q - settings.clamp) < margin
    return near


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x32 with 10 rounds."""
    a, b, c, d = counter
    low, high = key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (second >> 32) ^ b ^ low, second & _WORD, (first >> 32) ^ d ^ high, first & _WORD
        low, high = (low + 0x9E3779B9) & _WORD, (high + 0xBB67AE85) & _WORD
    return a, b, c, d


def drawn_word(seed: int, index: int, modality: int) -> int:
    """The random word of one modality at the 64-bit voxel index `b * N + v`."""
    key = (seed & _WORD, (seed >> 32) & _WORD)
    return philox((index & _WORD, (index >> 32) & _WORD, modality // 4, 0), key)[modality % 4]


def drawn_keep(seed: int, mask_ratio: float, batch: int, modalities: int, spatial: Sequence[int]) -> BoolArray:
    """The drawn mask, `[B, M, *spatial]`, true where kept."""
    N = math.prod(spatial)
    keep = np.empty((batch, modalities, N), bool)
    for b, m, v in np.ndindex(*keep.shape):
        keep[b, m, v] = not drawn_word(seed, b * N + v, m) < mask_ratio * 2**32
    return keep.reshape(batch, modalities, *spatial)
