"""Conversions against Python's integers and NumPy's and PyTorch's rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.ptx.handwritten import apply
from tests.ptx.program import UnknownInstructionError
from tests.ptx.test_arithmetic import assert_same, edges, nearest_single, wrapped

KINDS = ("s16", "u16", "s32", "u32", "s64", "u64")


@pytest.mark.parametrize("operand", KINDS)
@pytest.mark.parametrize("result", KINDS)
def test_integers_are_cut_or_extended(result: str, operand: str) -> None:
    x = edges(operand)
    assert_same(apply(f"cvt.{result}.{operand}", edges(result).dtype.type, x), [wrapped(int(a), result) for a in x])


def test_bytes_live_in_wider_registers() -> None:
    x = np.array([0x1_80, 0x2_7F, 0xFF], np.uint16)
    assert_same(apply("cvt.u32.u8", np.uint32, x), [0x80, 0x7F, 0xFF])
    assert_same(apply("cvt.s32.s8", np.int32, x), [-128, 127, -1])
    assert_same(apply("cvt.u16.s8", np.uint16, x), [0xFF80, 0x7F, 0xFFFF])


@pytest.mark.parametrize("kind", KINDS)
def test_integers_to_float32(kind: str) -> None:
    """About numbers that need more than 24 bits, ties among them."""
    limits = np.iinfo(edges(kind).dtype)
    odd = [2**24 + 1, 2**24 + 3, 2**40 + 2**16, 2**40 + 2**16 + 1, 2**63 + 2**39, 2**63 + 2**39 + 1]
    x = np.array([*edges(kind), *(value for value in odd if value <= limits.max)], edges(kind).dtype)
    assert_same(apply(f"cvt.rn.f32.{kind}", np.float32, x), [nearest_single(Fraction(int(a))) for a in x])


@pytest.mark.parametrize(
    ("rounding", "function"), [("rzi", math.trunc), ("rni", round), ("rmi", math.floor), ("rpi", math.ceil)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_to_integers(kind: str, rounding: str, function: Callable[[float], int]) -> None:
    limits = np.iinfo(edges(kind).dtype)
    values = [0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.7, 100.25, 3e9, -3e9, 1e19, -1e19, 2.0**31, 2.0**63, 1e30]
    x = np.array([*values, math.inf, -math.inf, math.nan], np.float32)
    want = [min(max(function(float(a)), limits.min), limits.max) for a in x[: len(values)]]
    of_nan = 0 if int(kind[1:]) < 64 else wrapped(1 << 63, kind)
    want += [int(limits.max), int(limits.min), of_nan]
    assert_same(apply(f"cvt.{rounding}.{kind}.f32", edges(kind).dtype.type, x), want)


def halves() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Ties, overflow, denormal numbers and random ones."""
    ties = [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8 + 2.0**-20]
    special = [0.0, -0.0, math.inf, -math.inf, 65519.0, 65520.0, 3.4e38, 2.0**-24, 2.0**-25, 3 * 2.0**-26, 1e-40]
    return np.array([*ties, *special, *np.random.default_rng(0).standard_normal(200)], np.float32)


@pytest.mark.parametrize(("kind", "dtype"), [("bf16", torch.bfloat16), ("f16", torch.float16)])
def test_float32_to_half_precision_and_back(kind: str, dtype: torch.dtype) -> None:
    x = halves()
    rounded = torch.from_numpy(x).to(dtype)
    bits = rounded.view(torch.uint16).numpy()
    assert_same(apply(f"cvt.rn.{kind}.f32", np.uint16, x), bits)
    assert_same(apply(f"cvt.f32.{kind}", np.float32, bits), rounded.float().numpy())
    both = apply(f"cvt.rn.{kind}x2.f32", np.uint32, x, x[::-1].copy())
    assert_same(both, bits.astype(np.uint32) << 16 | bits[::-1])
    assert apply(f"cvt.rn.{kind}.f32", np.uint16, np.float32([math.nan, -math.nan])).tolist() == [0x7FFF, 0x7FFF]


def test_small_integers_to_half_precision() -> None:
    x = np.array([0, 1, 255], np.uint16)
    assert apply("cvt.rn.bf16.u8", np.uint16, x).tolist() == [0, 0x3F80, 0x437F]
    assert apply("cvt.rn.f16.u16", np.uint16, x).tolist() == [0, 0x3C00, 0x5BF8]


@pytest.mark.parametrize("name", ["cvt.rz.bf16.f32", "cvt.rn.satfinite.bf16.f32", "cvt.f32.f32", "cvt.rn.relu.f16.f32"])
def test_other_conversions_are_errors(name: str) -> None:
    with pytest.raises(UnknownInstructionError, match=name):
        apply(name, np.uint16, np.float32([1.0]))
