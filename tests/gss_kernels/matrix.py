"""Every number of modalities and categories with every combination of the vote's options, for any backend."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np

from gss_kernels.settings import Backend
from tests.gss_kernels.cases import Case, problem, random_absent, random_leaders, run
from tests.gss_kernels.oracle import Settings

SIZES = tuple(itertools.product(range(2, 7), range(2, 9)))
_VOLUMES = ((3, 1, 5), (13,), (3, 5), (1, 11), (17,), (1,))
_ROUNDING = 2.0**-23
# A bound that only a wrong formula exceeds: without it, a fault that both share would pass.
_EAGER_ROUNDINGS = 8


def cases(modalities: int, categories: int) -> list[Case]:
    """Float32 cases of tiny, odd volumes with random leader sets; the same on every call."""
    rng = random.Random(10 * modalities + categories)
    choices = itertools.product(
        ("paper", "released"), ("kl", "cross_entropy"), ("drawn", "given", "none"), (False, True)
    )
    found = []
    for number, (semantics, divergence, mask, lacks) in enumerate(choices):
        batch = 1 + (number + modalities + categories) % 3
        found.append(
            Case(
                f"{semantics}, {divergence}, {mask} mask, {'available' if lacks else 'complete'}, batch of {batch}",
                random_leaders(rng, modalities, categories),
                modalities,
                batch,
                _VOLUMES[(number // 3 + modalities + categories) % len(_VOLUMES)],
                mask=mask,
                absent=random_absent(rng, batch, modalities) if lacks else None,
                settings=Settings(semantics=semantics, divergence=divergence),
                reduction=rng.choice(("mean", "none")),
                layout=rng.choice(("stacked", "sequence")),
                seed=rng.getrandbits(63),
            )
        )
    return found


def check_against_eager(case: Case, backend: Backend, device: str = "cpu", roundings: float = 2.0) -> None:
    """No further from the float64 truth than plain PyTorch in float32, but for some roundings of the largest terms.

    Loss and gradient are differences, so what rounds is the size of their terms: `log C` for each modality's loss, and
    the upstream gradient over `N * T` for the gradient. Probabilities are at most 1.
    """
    data = problem(case)
    terms = {
        "loss": math.log(len(case.leaders)) * (case.modalities if case.reduction == "mean" else 1),
        "gradient": float(np.abs(data.upstream).max()) / (math.prod(case.spatial) * case.settings.temperature),
        "target": 1.0,
    }
    truth = {
        "loss": data.answer.losses if case.reduction == "none" else np.asarray(data.answer.mean()),
        "gradient": data.answer.gradient_under(data.upstream),
        "target": data.answer.target,
    }
    fused, eager = (vars(run(case, name, device)) for name in (backend, "reference"))
    for name, want in truth.items():
        assert fused[name].shape == eager[name].shape == want.shape
        distance, yardstick = (float(np.abs(result[name] - want).max()) / terms[name] for result in (fused, eager))
        assert yardstick <= _EAGER_ROUNDINGS * _ROUNDING, f"{case.name}: eager {name} off by {yardstick:.3g}"
        assert distance <= yardstick + roundings * _ROUNDING, (
            f"{case.name}: {name} off by {distance:.3g} of its terms, eager by {yardstick:.3g}"
        )
