"""The losses' hyper-parameters, checked once."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Literal, NamedTuple, TypedDict, TypeGuard, get_args

Semantics = Literal["paper", "released"]
Divergence = Literal["kl", "cross_entropy"]
Reduction = Literal["mean", "none"]
Backend = Literal["auto", "triton", "cpu", "reference"]
InputKind = Literal["logits", "probabilities"]

# The segmentation loss's, of the published training code; they are no arguments, as no work on the task has changed
# them.
LOWEST_PROBABILITY = 0.005
DICE_SMOOTHING = 1e-7


class VoteOptions(TypedDict, total=False):
    """Those of `GSSSettings` that the soft target depends on, as keyword arguments."""

    temperature: float
    leader_threshold: float
    member_threshold: float
    leader_blend: float
    semantics: Semantics


class GSSOptions(VoteOptions, total=False):
    """The fields of `GSSSettings` as keyword arguments; their defaults stand there."""

    mask_ratio: float
    divergence: Divergence
    class_weighting: bool
    clamp: float


class GSSSettings(NamedTuple):
    """The hyper-parameters of the GSS loss with their defaults, the published ones; symbols of the paper in brackets.

    Attributes:
        temperature: softening of the logits before targets and students are built [T], above 0.
        leader_threshold: sharp probability above which a leader is confident [tau_L], in (0, 1).
        member_threshold: sharp probability above which a member is confident [tau_M], in (0, 1).
        leader_blend: where leaders disagree, how far the vote moves from their maximum (0) to their minimum (1) [beta].
        semantics: "paper", or "released" to repeat the public code's two deviations from it.
        mask_ratio: probability with which a voxel is left out, drawn per modality, in [0, 1].
        divergence: "kl", or "cross_entropy" as in the public code; both have the same gradient.
        class_weighting: weigh each category by one minus its share of the target.
        clamp: student probability below which the loss is flat, in (0, 1).
    """

    temperature: float = 8.0
    leader_threshold: float = 0.75
    member_threshold: float = 0.85
    leader_blend: float = 0.3
    semantics: Semantics = "paper"
    mask_ratio: float = 0.2
    divergence: Divergence = "kl"
    class_weighting: bool = True
    clamp: float = 0.005

    @property
    def squarings(self) -> int:
        """How often to square a tempered exponential to get the sharp one; 0 where that is no short cut."""
        return {2.0: 1, 4.0: 2, 8.0: 3, 16.0: 4}.get(self.temperature, 0)


def check_settings(**options: object) -> GSSSettings:
    """The settings with these options, numbers as floats.

    Raises:
        TypeError: no such option.
        ValueError: an option of wrong type or value.
    """
    settings = GSSSettings(**options)  # type: ignore[arg-type]
    if not options:
        return settings
    temperature, weighting = settings.temperature, settings.class_weighting
    _need("temperature", temperature, _is_number(temperature) and 0 < temperature < math.inf, "a finite number above 0")
    for name in ("leader_threshold", "member_threshold", "clamp"):
        value = getattr(settings, name)
        _need(name, value, _is_number(value) and 0 < value < 1, "a number strictly between 0 and 1")
    check_share("leader_blend", settings.leader_blend)
    check_share("mask_ratio", settings.mask_ratio)
    check_choice("semantics", settings.semantics, Semantics)
    check_choice("divergence", settings.divergence, Divergence)
    _need("class_weighting", weighting, isinstance(weighting, bool), "True or False")
    return GSSSettings(*(float(value) if _is_number(value) else value for value in settings))  # type: ignore[arg-type]


def is_integer(value: object) -> TypeGuard[int]:
    """Whether `value` is an integer, of Python or NumPy; a bool is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_weight(name: str, value: float) -> float:
    """The weight of a loss as a float; ValueError unless it is a finite number of 0 or more."""
    _need(name, value, _is_number(value) and 0 <= value < math.inf, "a finite number of 0 or more")
    return float(value)


def check_ignore_index(ignore_index: int | None) -> int | None:
    """`ignore_index` as Python's own int; ValueError unless it is an integer or None."""
    _need("ignore_index", ignore_index, ignore_index is None or is_integer(ignore_index), "an integer or None")
    return None if ignore_index is None else int(ignore_index)


def check_count(name: str, value: int, least: int) -> None:
    """Raise ValueError unless `value` is an integer of at least `least`."""
    _need(name, value, is_integer(value) and value >= least, f"an integer of {least} or more")


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a number from 0 to 1."""
    _need(name, value, _is_number(value) and 0 <= value <= 1, "a number from 0 to 1")


def check_choice(name: str, value: object, choices: object) -> None:
    """Raise ValueError unless `value` is one of a `Literal`'s words."""
    words = get_args(choices)
    _need(name, value, isinstance(value, str) and value in words, f"one of {', '.join(map(repr, words))}")


def _need(name: str, value: object, right: bool, what: str) -> None:
    if not right:
        # Not the text of a tensor, which may be long.
        got = repr(value) if value is None or isinstance(value, str | Real) else type(value).__name__
        raise ValueError(f"{name}: got {got}, need {what}")


def _is_number(value: object) -> bool:
    return type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))
