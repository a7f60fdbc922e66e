"""The loss's hyper-parameters, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, TypeGuard, get_args

Semantics = Literal["paper", "released"]
Divergence = Literal["kl", "cross_entropy"]
Reduction = Literal["mean", "none"]
Backend = Literal["auto", "triton", "cpu", "reference"]


@dataclass(frozen=True)
class VoteSettings:
    """How the soft target is voted; symbols of the paper in brackets.

    Attributes:
        temperature: softening of the logits before targets and students are built [T], above 0.
        leader_threshold: sharp probability above which a leader is confident [tau_L], in (0, 1).
        member_threshold: sharp probability above which a member is confident [tau_M], in (0, 1).
        leader_blend: how far a split vote of leaders moves from their maximum to their minimum [beta], in [0, 1].
        semantics: "paper", or "released" for the public code's two deviations from it.
    """

    temperature: float = 8.0
    leader_threshold: float = 0.75
    member_threshold: float = 0.85
    leader_blend: float = 0.3
    semantics: Semantics = "paper"

    def __post_init__(self) -> None:
        _check_positive("temperature", self.temperature)
        _check_open_interval("leader_threshold", self.leader_threshold)
        _check_open_interval("member_threshold", self.member_threshold)
        _check_closed_interval("leader_blend", self.leader_blend)
        _check_choice("semantics", self.semantics, get_args(Semantics))
        for name in ("temperature", "leader_threshold", "member_threshold", "leader_blend"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def squarings(self) -> int:
        """How often to square a tempered exponential to get the sharp one; 0 where that is no short cut."""
        return {2.0: 1, 4.0: 2, 8.0: 3, 16.0: 4}.get(self.temperature, 0)


@dataclass(frozen=True)
class DistillationSettings:
    """How the students are drawn towards the soft target.

    Attributes:
        divergence: "kl", or "cross_entropy" as in the public code; both have the same gradient.
        class_weighting: weigh each category by one minus its share of the target.
        clamp: student probability below which the logarithm is cut off, in (0, 1).
        reduction: "mean" over samples of the sum over modalities, or "none" for `[B, M]`.
    """

    divergence: Divergence = "kl"
    class_weighting: bool = True
    clamp: float = 0.005
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        _check_choice("divergence", self.divergence, get_args(Divergence))
        if not isinstance(self.class_weighting, bool):
            raise ValueError(  # noqa: TRY004
                f"class_weighting: got {_described(self.class_weighting)}, need True or False"
            )
        _check_open_interval("clamp", self.clamp)
        _check_choice("reduction", self.reduction, get_args(Reduction))
        object.__setattr__(self, "clamp", float(self.clamp))


def is_integer(value: object) -> TypeGuard[int]:
    """Whether `value` is an integer, of Python or NumPy; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_weight(name: str, value: float) -> None:
    """Raise ValueError unless the weight of a loss is a finite number of 0 or more."""
    if not (_is_number(value) and 0 <= value < math.inf):
        raise ValueError(f"{name}: got {_described(value)}, need a finite number of 0 or more")


def check_count(name: str, value: int, least: int) -> None:
    """Raise ValueError unless `value` is an integer of at least `least`."""
    if not (is_integer(value) and value >= least):
        raise ValueError(f"{name}: got {_described(value)}, need an integer of {least} or more")


def check_mask_ratio(mask_ratio: float) -> None:
    """Raise ValueError unless `mask_ratio` is a probability."""
    _check_closed_interval("mask_ratio", mask_ratio)


def check_backend(backend: str) -> None:
    """Raise ValueError unless `backend` is one of the known names."""
    _check_choice("backend", backend, get_args(Backend))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _described(value: object) -> str:
    """The value, or the type of one whose text may be long."""
    return repr(value) if value is None or isinstance(value, str | Real) else type(value).__name__


def _check_positive(name: str, value: float) -> None:
    if not (_is_number(value) and 0 < value < math.inf):
        raise ValueError(f"{name}: got {_described(value)}, need a finite number above 0")


def _check_open_interval(name: str, value: float) -> None:
    if not (_is_number(value) and 0 < value < 1):
        raise ValueError(f"{name}: got {_described(value)}, need a number strictly between 0 and 1")


def _check_closed_interval(name: str, value: float) -> None:
    if not (_is_number(value) and 0 <= value <= 1):
        raise ValueError(f"{name}: got {_described(value)}, need a number from 0 to 1")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"{name}: got {_described(value)}, need one of {', '.join(repr(choice) for choice in choices)}"
        )
