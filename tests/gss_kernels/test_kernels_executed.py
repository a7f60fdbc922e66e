"""The project's kernels as Triton compiles them for NVIDIA's GPUs, run on the CPU: results, bounds, races.

Every day one case of each kernel and dtype on sm_90; `-m exhaustive` takes the other tests' tables on every target.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: the interpreter compiles nothing", allow_module_level=True)

import triton
import triton.language as tl

from gss_kernels import BRATS_2018, fused_gss_loss
from tests.gss_kernels import cases, objective_cases, segmentation_cases, statistics_behaviours
from tests.gss_kernels.cases import BRATS_5, Case
from tests.gss_kernels.launch_matrix import chosen_calls, specialisations_of
from tests.gss_kernels.objective_cases import ObjectiveCase
from tests.gss_kernels.oracle import Settings
from tests.gss_kernels.segmentation_cases import SegmentationCase
from tests.ptx.execution import executable
from tests.ptx.launching import execute_launch, executing_card
from tests.ptx.memory import AccessError
from tests.ptx.races import RaceError

pytestmark = pytest.mark.usefixtures("triton_cache")
TARGETS = ("sm_80", "sm_90", "sm_100")
# So few that programs walk over several blocks, and not all over equally many.
_MULTIPROCESSORS = 1
_RELEASED = Settings(semantics="released")
_GAPS = ((0, 1), (1, 0), (1, 3))

DAILY_LOSSES = {
    case.name: case
    for case in (
        Case("walks", batch=3, spatial=(7, 10, 11)),
        Case("gaps_bfloat16", BRATS_5, absent=_GAPS, mask="given", dtype=torch.bfloat16, layout="sequence"),
    )
}
DAILY_OBJECTIVES = {
    case.name: case
    for case in (
        ObjectiveCase(Case("sliced", ((0,), (0, 1), (1,)), 2, layout="sliced", settings=_RELEASED), 0.7, 1.9),
        ObjectiveCase(Case("bfloat16", ((1,), (0,)), 2, dtype=torch.bfloat16), label_dtype=torch.int64),
    )
}
DAILY_SEGMENTATIONS = {
    case.name: case
    for case in (
        SegmentationCase("walks", batch=3, spatial=(7, 10, 11), absent=(1,)),
        SegmentationCase("bfloat16", "probabilities", 3, dtype=torch.bfloat16, layout="channels_last"),
    )
}
_WALKS = [
    Case("walk_5", BRATS_5, batch=4, spatial=(11, 10, 11), settings=_RELEASED, layout="permuted"),
    Case("walk_bfloat16", batch=3, spatial=(7, 10, 11), absent=_GAPS, dtype=torch.bfloat16),
    Case("walk_float16", ((0,), (1,), (0, 1)), 3, 3, (7, 10, 11), mask="none", dtype=torch.float16),
]
LOSSES = cases.TABLE | {case.name: case for case in _WALKS}


def check_loss(case: Case, target: str) -> None:
    with executing_card(target, _MULTIPROCESSORS):
        result = cases.run(case, "triton")
    cases.check(case, result)


def check_objective(case: ObjectiveCase, target: str) -> None:
    with executing_card(target, _MULTIPROCESSORS):
        result = objective_cases.run(case, "triton")
    objective_cases.check(case, result)


def check_segmentation(case: SegmentationCase, target: str) -> None:
    with executing_card(target, _MULTIPROCESSORS):
        result = segmentation_cases.run(case, "triton")
    segmentation_cases.check(case, result)


@pytest.mark.parametrize("name", DAILY_LOSSES)
def test_loss_and_targets(name: str) -> None:
    check_loss(DAILY_LOSSES[name], "sm_90")


@pytest.mark.parametrize("name", DAILY_OBJECTIVES)
def test_objective(name: str) -> None:
    check_objective(DAILY_OBJECTIVES[name], "sm_90")


@pytest.mark.parametrize("name", DAILY_SEGMENTATIONS)
def test_segmentation(name: str) -> None:
    check_segmentation(DAILY_SEGMENTATIONS[name], "sm_90")


def test_statistics() -> None:
    with executing_card("sm_90", _MULTIPROCESSORS):
        statistics_behaviours.agrees_with_the_count(statistics_behaviours.CASES["leader_sets"], "triton", "cpu")


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [name for name, case in LOSSES.items() if case.dtype != torch.float64])
def test_every_loss(name: str, target: str) -> None:
    check_loss(LOSSES[name], target)


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "name", [name for name, case in objective_cases.TABLE.items() if case.call.dtype != torch.float64]
)
def test_every_objective(name: str, target: str) -> None:
    check_objective(objective_cases.TABLE[name], target)


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", segmentation_cases.TABLE)
def test_every_segmentation(name: str, target: str) -> None:
    check_segmentation(segmentation_cases.TABLE[name], target)


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", statistics_behaviours.CASES)
def test_every_statistic(name: str, target: str) -> None:
    with executing_card(target, _MULTIPROCESSORS):
        statistics_behaviours.agrees_with_the_count(statistics_behaviours.CASES[name], "triton", "cpu")


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
def test_every_instruction_is_known(target: str) -> None:
    """Of all kernels that calls of every form are compiled to."""
    for specialisation in specialisations_of(chosen_calls(), target):
        executable(specialisation.compile().asm["ptx"])


@triton.jit
def double_kernel(source, result, count, MASKED: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803  (device code)
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if MASKED:
        tl.store(result + offsets, 2 * tl.load(source + offsets, mask=offsets < count), mask=offsets < count)
    else:
        tl.store(result + offsets, 2 * tl.load(source + offsets))


@triton.jit
def misplaced_kernel(result, BLOCK: tl.constexpr):  # noqa: N803
    tl.store(result + tl.arange(0, BLOCK), tl.program_id(0).to(tl.float32) + tl.zeros((BLOCK,), tl.float32))


def test_missing_mask() -> None:
    source, result = torch.randn(100), torch.zeros(100)
    with executing_card("sm_90"):
        double_kernel[1,](source, result, 100, MASKED=True, BLOCK=128, enable_fp_fusion=True)
    assert torch.equal(result, 2 * source)
    with (
        executing_card("sm_90"),
        pytest.raises(AccessError, match=r"ld.global.*test_kernels_executed.py.* in no tensor"),
    ):
        double_kernel[1,](source, result, 100, MASKED=False, BLOCK=128, enable_fp_fusion=True)


def test_programs_that_write_the_same_memory() -> None:
    with (
        executing_card("sm_90"),
        pytest.raises(RaceError, match=r"st.global.*test_kernels_executed.py"),
    ):
        misplaced_kernel[2,](torch.zeros(128), BLOCK=128, enable_fp_fusion=True)


@pytest.mark.parametrize("number", [0, 1], ids=["forward", "finish"])
def test_missing_barrier(number: int) -> None:
    """Without any one of its first barriers a reduction through shared memory is a race."""
    with executing_card("sm_90", _MULTIPROCESSORS) as executed:
        fused_gss_loss(torch.randn(1, 4, 4, 2, 3, 5), BRATS_2018, seed=1, backend="triton")
    launch = executed[number].launch
    ptx = launch.kernel.asm["ptx"]
    barriers = list(re.finditer(r"bar\.sync[^;]*;", ptx))
    assert barriers
    for barrier in barriers[:3]:
        without = ptx[: barrier.start()] + ptx[barrier.end() :]
        with pytest.raises(RaceError, match="without a barrier between them"):
            execute_launch(launch, without)
