"""How bits that nobody has written spread from operands to results.

A rule takes the operands' values and their undefined bits, as ones, of the same width; None where all are defined, but
not for all operands. It gives the result's undefined bits, or booleans for all of a thread's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.ptx.number_formats import Array, as_bits

Rule = Callable[[Sequence[Array], Sequence[Array | None]], Array]


def of_any_operand(_values: Sequence[Array], masks: Sequence[Array | None]) -> Array:
    """All of the result, where any bit of any operand is undefined."""
    return np.asarray(np.any([mask != 0 for mask in masks if mask is not None], axis=0))


def of_moved_bits(compute: Callable[..., Array], number: int) -> Rule:
    """Where the bits of the first operands, so many, are only moved, as the others say."""

    def rule(values: Sequence[Array], masks: Sequence[Array | None]) -> Array:
        data = [
            np.zeros_like(value) if mask is None else mask.view(value.dtype)
            for value, mask in zip(values[:number], masks[:number], strict=True)
        ]
        moved = as_bits(np.asarray(compute(*data, *values[number:])))
        controls = [mask for mask in masks[number:] if mask is not None]
        if controls:
            everything = of_any_operand(values[number:], controls)
            moved = np.where(everything, ~moved.dtype.type(0), moved)
        return moved

    return rule


def of_logic(absorbing: Callable[[Array], Array] | None) -> Rule:
    """Bit by bit; one that is defined decides where it absorbs the other, as 0 does in a conjunction."""

    def rule(values: Sequence[Array], masks: Sequence[Array | None]) -> Array:
        one, other = (np.zeros_like(value) if mask is None else mask for value, mask in zip(values, masks, strict=True))
        undefined = one | other
        if absorbing is not None:
            decided = absorbing(values[0]) & ~one | absorbing(values[1]) & ~other
            undefined = undefined & ~decided
        return np.asarray(undefined)

    return rule


def of_halves(_values: Sequence[Array], masks: Sequence[Array | None]) -> Array:
    """Each half of the result comes of the same halves."""
    found = [mask for mask in masks if mask is not None]
    dtype = np.dtype(f"u{found[0].itemsize // 2}")
    halves = np.any([mask.view(dtype) != 0 for mask in found], axis=0)
    return np.asarray(np.where(halves, ~dtype.type(0), dtype.type(0))).view(found[0].dtype)


def of_packed_halves(_values: Sequence[Array], masks: Sequence[Array | None]) -> Array:
    """The upper half of 32 bits comes of the first operand, the lower one of the second."""
    halves = (np.uint32(0xFFFF_0000), np.uint32(0x0000_FFFF))
    nothing = np.uint32(0)
    parts = [
        nothing if mask is None else np.where(mask != 0, half, nothing)
        for half, mask in zip(halves, masks, strict=True)
    ]
    return np.asarray(parts[0] | parts[1])
