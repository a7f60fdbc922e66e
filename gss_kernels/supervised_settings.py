"""What the supervised loss has besides its tensors."""

from __future__ import annotations

from typing import Literal, get_args

InputKind = Literal["logits", "probabilities"]

# The published training code's; they are no arguments, as no work on the task has changed them.
LOWEST_PROBABILITY = 0.005
DICE_SMOOTHING = 1e-7


def check_input_kind(input_kind: str) -> None:
    """Raise ValueError unless `input_kind` is one of the known names."""
    choices = get_args(InputKind)
    if input_kind not in choices:
        raise ValueError(f"input_kind: got {input_kind!r}, need one of {', '.join(repr(choice) for choice in choices)}")
