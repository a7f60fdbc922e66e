"""The Triton kernels compiled for GPUs that this machine need not have, and what their machine code needs."""

from __future__ import annotations

import collections
import functools
import importlib.util
import os
import sys

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: the interpreter compiles nothing", allow_module_level=True)

from benchmarks import machine_code
from benchmarks.machine_code import SIZES, Kernel, Resources, compiled
from benchmarks.stub_card import TARGETS
from gss_kernels.triton.configuration import TABLE

pytestmark = pytest.mark.usefixtures("triton_cache")
NVIDIA = [target for target in TARGETS if target.startswith("sm")]
PASSES = ("forward_kernel", "backward_kernel")
OTHERS = ("target_kernel", "finish_kernel", "segmentation_forward_kernel", "segmentation_backward_kernel")
_BITS = {"fp32": 32, "bf16": 16}
_BYTES_OF_STACK = 16

resources = functools.cache(machine_code.resources)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("modalities", "categories"), SIZES)
@pytest.mark.parametrize("name", PASSES)
def test_nothing_spills(name: str, modalities: int, categories: int, target: str) -> None:
    assert resources(Kernel(name, modalities, categories), target).spilled_bytes == 0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("categories", [4, 5])
@pytest.mark.parametrize("name", PASSES)
def test_next_to_nothing_spills_with_supervision_and_missing_modalities(
    name: str, categories: int, target: str
) -> None:
    kernel = Kernel(name, 4, categories, supervised=True, available=True)
    assert resources(kernel, target).spilled_bytes <= _BYTES_OF_STACK


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_kernels_do_not_spill(name: str, target: str) -> None:
    kernel = Kernel(name, 4, 5, supervised=name == "finish_kernel", statistics=name == "finish_kernel")
    assert resources(kernel, target).spilled_bytes == 0


@pytest.mark.parametrize(("categories", "programs"), [(4, 3), (5, 2)])
def test_forward_pass_leaves_room_for_programs_on_a_multiprocessor(categories: int, programs: int) -> None:
    """65,536 registers, handed out by eight to a thread; fewer programs could not hide the time memory takes."""
    registers = resources(Kernel("forward_kernel", 4, categories), "sm_90").registers
    assert 65_536 // (-(-registers // 8) * 8 * 128) >= programs


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", _BITS)
@pytest.mark.parametrize("name", PASSES)
def test_every_logit_is_loaded_once_and_in_pairs(name: str, dtype: str, target: str) -> None:
    """The bytes that move are the floor: the logits in, once, and in the backward pass the gradient out, once."""
    kernel = Kernel(name, 4, 4, dtype)
    needed = resources(kernel, target)
    pair = 2 * _BITS[dtype]
    if name == "forward_kernel":
        assert needed.loads == {pair: 4 * 4}
        # A program's partial sums, after the loop.
        assert needed.stores in ({}, {32: 4 + 2 * 4 * 4})
    elif target.startswith("gfx"):
        # Besides the category weights, four in a load, and the gradient's own factor for each modality, of which
        # a compiler may merge one with another's.
        besides = collections.Counter(needed.loads)
        besides.subtract({pair: 4 * 4})
        assert +besides in ({128: 4, 32: 4}, {128: 3, 32: 3})
        assert needed.stores == {pair: 4 * 4}
    else:
        # And per block, not per voxel: the category weights and the gradient's own factor for each modality, the seed.
        assert needed.loads[pair] + needed.loads[64 if pair == 32 else 32] == 4 * 4 + 4 * 4 + 4 + 1
        assert needed.loads[64] == (4 * 4 + 1 if pair == 64 else 1)
        assert needed.stores == {pair: 4 * 4}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("modalities", "categories"), SIZES)
def test_logits_of_every_size_are_loaded_in_pairs(modalities: int, categories: int, target: str) -> None:
    assert resources(Kernel("forward_kernel", modalities, categories), target).loads == {64: modalities * categories}


@pytest.mark.parametrize("target", NVIDIA)
@pytest.mark.parametrize("categories", [4, 5])
def test_special_functions(categories: int, target: str) -> None:
    """An exponential for each logit, a reciprocal for each modality and the target, logarithms in the forward pass."""
    exponentials, reciprocals, logarithms = 4 * categories, 4 + 1, 4 + categories
    forward = resources(Kernel("forward_kernel", 4, categories), target)
    assert forward.special_functions == exponentials + reciprocals + logarithms
    backward = resources(Kernel("backward_kernel", 4, categories), target)
    assert backward.special_functions is not None
    per_block = 0.5  # a division of the program's number, for two voxels
    assert exponentials + reciprocals <= backward.special_functions <= exponentials + reciprocals + per_block


@pytest.mark.parametrize("available", [False, True])
@pytest.mark.parametrize("name", PASSES)
def test_students_are_rounded_before_they_are_summed(name: str, available: bool) -> None:
    """Else the members' sum depends on whether the compiler merges it with the product that a student is.

    And so would do the bits on whether `available` is passed, where nothing is missing.
    """
    code = compiled(Kernel(name, 4, 4, available=available), "sm_90").asm["ptx"]
    per_voxel = code.count("mul.rn.f32") / TABLE.forward.voxels_per_thread
    assert per_voxel == 4 * 4


@pytest.mark.parametrize(("categories", "forward", "backward"), [(4, 520, 560), (5, 630, 660)])
def test_instructions(categories: int, forward: float, backward: float) -> None:
    """What lets memory, and not the issue of instructions, be the limit of the backward pass; see docs/kernels.md."""
    for name, most in zip(PASSES, (forward, backward), strict=True):
        needed: Resources = resources(Kernel(name, 4, categories), "sm_90")
        assert needed.instructions is not None
        assert needed.instructions <= most


@pytest.mark.parametrize("supervised", [False, True])
def test_statistics_compile(supervised: bool) -> None:
    kernel = Kernel("forward_kernel", 4, 4, supervised=supervised, statistics=True, available=True)
    assert resources(kernel, "sm_90").spilled_bytes <= _BYTES_OF_STACK
