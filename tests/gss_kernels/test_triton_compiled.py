"""The Triton kernels compiled for GPUs that this machine need not have, and what their machine code needs."""

from __future__ import annotations

import collections
import importlib.util
import os
import sys
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: the interpreter compiles nothing", allow_module_level=True)

from benchmarks.machine_code import Kernel, Resources, compiled, resources, spilled_bytes
from benchmarks.stub_card import TARGETS
from gss_kernels.triton.configuration import TABLE

pytestmark = pytest.mark.usefixtures("triton_cache")
PASSES = ("gss_forward_kernel", "gss_backward_kernel")
OTHERS = (
    "gss_target_kernel",
    "segmentation_forward_kernel",
    "segmentation_finish_kernel",
    "segmentation_backward_kernel",
)
_OTHER_SIZES = {(2, 2): "sm_80", (3, 4): "sm_100", (4, 3): "gfx942"}
"""Modalities and categories, and the target for which they are compiled every day."""
_BITS = {"fp32": 32, "bf16": 16}
_BYTES_OF_STACK = 16
_MOST_INSTRUCTIONS = {
    ("gss_forward_kernel", 4): 520,
    ("gss_backward_kernel", 4): 560,
    ("gss_forward_kernel", 5): 630,
    ("gss_backward_kernel", 5): 660,
}
"""Per voxel. What lets memory, and not the issue of instructions, limit the backward pass; see docs/kernels.md."""
_LEAST_PROGRAMS = {4: 3, 5: 2}
"""On a multiprocessor by number of categories; fewer could not hide the time memory takes."""


def every_day_if(daily: bool, *values: object) -> Any:
    return pytest.param(*values, marks=() if daily else pytest.mark.exhaustive)


# A kernel's machine code is read in one test only: compiling it and reading it take longer than all that is asked.
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("categories", [4, 5])
@pytest.mark.parametrize("name", PASSES)
def test_machine_code(name: str, categories: int, target: str) -> None:
    kernel = Kernel(name, 4, categories)
    needed = resources(kernel, target)
    assert needed.spilled_bytes == 0
    if name == "gss_forward_kernel" or categories == 4:
        check_loads_and_stores(kernel, target, needed)
    if target.startswith("sm"):
        check_special_functions(kernel, needed)
    if target == "sm_90":
        assert needed.instructions is not None
        assert needed.instructions <= _MOST_INSTRUCTIONS[name, categories]
        if name == "gss_forward_kernel":
            # 65,536 registers, handed out by eight to a thread.
            assert 65_536 // (-(-needed.registers // 8) * 8 * 128) >= _LEAST_PROGRAMS[categories]


@pytest.mark.parametrize(
    ("modalities", "categories", "target"),
    [every_day_if(target == daily, *size, target) for size, daily in _OTHER_SIZES.items() for target in TARGETS],
)
def test_machine_code_of_other_sizes(modalities: int, categories: int, target: str) -> None:
    forward, backward = (Kernel(name, modalities, categories) for name in PASSES)
    needed = resources(forward, target)
    assert needed.spilled_bytes == spilled_bytes(backward, target) == 0
    check_loads_and_stores(forward, target, needed)


@pytest.mark.parametrize("target", [every_day_if(target in {"sm_90", "gfx942"}, target) for target in TARGETS])
@pytest.mark.parametrize("name", PASSES)
def test_machine_code_for_bfloat16(name: str, target: str) -> None:
    kernel = Kernel(name, 4, 4, "bf16")
    check_loads_and_stores(kernel, target, resources(kernel, target))


def check_loads_and_stores(kernel: Kernel, target: str, needed: Resources) -> None:
    """The bytes that move are the floor: the logits in, once, and in the backward pass the gradient out, once."""
    logits, pair = kernel.modalities * kernel.categories, 2 * _BITS[kernel.dtype]
    if kernel.name == "gss_forward_kernel":
        assert needed.loads == {pair: logits}
        # A program's partial sums, after the loop.
        assert needed.stores in ({}, {32: kernel.modalities + 2 * logits})
    elif target.startswith("gfx"):
        # Besides the category weights, four in a load, and the gradient's own factor for each modality, of which
        # a compiler may merge one with another's.
        besides = collections.Counter(needed.loads)
        besides.subtract({pair: logits})
        assert +besides in ({128: 4, 32: 4}, {128: 3, 32: 3})
        assert needed.stores == {pair: logits}
    else:
        # And per block, not per voxel: the category weights and the gradient's own factor for each modality, the seed.
        assert needed.loads[pair] + needed.loads[64 if pair == 32 else 32] == logits + 4 * 4 + 4 + 1
        assert needed.loads[64] == (logits + 1 if pair == 64 else 1)
        assert needed.stores == {pair: logits}


def check_special_functions(kernel: Kernel, needed: Resources) -> None:
    """An exponential for each logit, a reciprocal for each modality and the target, logarithms in the forward pass."""
    assert needed.special_functions is not None
    exponentials_and_reciprocals = 4 * kernel.categories + 4 + 1
    if kernel.name == "gss_forward_kernel":
        assert needed.special_functions == exponentials_and_reciprocals + 4 + kernel.categories
    else:
        per_block = 0.5  # a division of the program's number, for two voxels
        assert 0 <= needed.special_functions - exponentials_and_reciprocals <= per_block


@pytest.mark.parametrize(
    ("categories", "target"),
    [
        every_day_if(categories == (5 if target in {"sm_90", "gfx942"} else 4), categories, target)
        for categories in (4, 5)
        for target in TARGETS
    ],
)
@pytest.mark.parametrize("name", PASSES)
def test_next_to_nothing_spills_with_supervision_and_missing_modalities(
    name: str, categories: int, target: str
) -> None:
    kernel = Kernel(name, 4, categories, supervised=True, available=True)
    assert spilled_bytes(kernel, target) <= _BYTES_OF_STACK


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels_do_not_spill(name: str, target: str) -> None:
    assert spilled_bytes(Kernel(name, 4, 5), target) == 0


@pytest.mark.parametrize(
    ("every_result", "target"),
    [
        every_day_if(target in ({"sm_90", "gfx942"} if every_result else {"sm_80"}), every_result, target)
        for every_result in (False, True)
        for target in TARGETS
    ],
)
def test_finish_kernel_does_not_spill(every_result: bool, target: str) -> None:
    """With fewer results the compiler may aim at fewer registers, and spill."""
    options = {"statistics": every_result, "available": every_result}
    assert (
        spilled_bytes(Kernel("gss_finish_kernel", 4, 5 if every_result else 4, supervised=True, **options), target) == 0
    )


@pytest.mark.parametrize("available", [False, True])
@pytest.mark.parametrize("name", PASSES)
def test_students_are_rounded_before_they_are_summed(name: str, available: bool) -> None:
    """Else the members' sum depends on whether the compiler merges it with the product that a student is.

    And so would do the bits on whether `available` is passed, where nothing is missing.
    """
    code = compiled(Kernel(name, 4, 5, available=available), "sm_90").asm["ptx"]
    per_voxel = code.count("mul.rn.f32") / TABLE.forward.voxels_per_thread
    assert per_voxel == 4 * 5


@pytest.mark.parametrize(("dtype", "supervised"), [("fp32", False), ("bf16", True)])
def test_statistics_compile(dtype: str, supervised: bool) -> None:
    kernel = Kernel("gss_forward_kernel", 4, 5, dtype, supervised=supervised, statistics=True, available=True)
    assert spilled_bytes(kernel, "sm_90") <= _BYTES_OF_STACK
