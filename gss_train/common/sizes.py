"""Lengths along the three axes of a volume, a crop or a window."""

from __future__ import annotations

from collections.abc import Sequence

Triple = tuple[int, int, int]
"""Voxels along each axis."""


def to_triple(lengths: int | Sequence[int]) -> Triple:
    """Three lengths, NumPy's or Python's, as Python's; one stands for three that are equal.

    Raises:
        ValueError: neither one nor three.
    """
    given = [lengths] if isinstance(lengths, int) else [int(length) for length in lengths]
    if len(given) not in {1, 3}:
        raise ValueError(f"got {len(given)} lengths, need one or three")
    x, y, z = given * 3 if len(given) == 1 else given
    return x, y, z


def times(lengths: Sequence[int]) -> str:
    """For people, such as "80x80x80"."""
    return "x".join(map(str, lengths))
