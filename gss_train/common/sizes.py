"""Lengths along the three axes of a volume, a crop or a window; amounts of bytes."""

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


def check_size(argument: str, size: int | Sequence[int], *, stride: int, least: int) -> Triple:
    """The three axes of a crop, given as one number or three.

    Raises:
        ValueError: unless each is a multiple of `stride` and at least `least`; it names the argument.
    """
    try:
        axes = to_triple(size)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error
    check_axes(argument, axes, stride=stride, least=least)
    return axes


def check_axes(argument: str, axes: tuple[int, ...], *, stride: int, least: int) -> None:
    """Raise a `ValueError` that names the argument unless each is a multiple of `stride` and at least `least`."""
    if any(axis % stride or axis < least for axis in axes):
        raise ValueError(
            f"{argument} has spatial size {axes}; each axis must be a multiple of {stride} and at least {least}"
        )


def times(lengths: Sequence[int]) -> str:
    """For people, such as "80x80x80"."""
    return "x".join(map(str, lengths))


def amount(count: float) -> str:
    """Bytes for people, such as "9.8 GB" or "73 MB"."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if count >= unit), (1e3, "kB"))
    return f"{count / unit:.{0 if count >= 100 * unit else 3}{'f' if count >= 100 * unit else 'g'}} {name}"
