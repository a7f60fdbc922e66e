"""GSS and the supervised loss of the same logits: in one pass, one by one, in plain PyTorch, and that compiled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.baselines.objective import eager_objective, separate_objective
from benchmarks.drawing import draw_labels, draw_logits
from benchmarks.measuring import Measure, Size
from benchmarks.results_table import COMPILED, EAGER
from benchmarks.steps import Loss, LossStep, compiled, taking_turns, why_not_compiled
from gss_kernels import BRATS_2015, BRATS_2018, CategoryGroups, fused_gss_objective
from gss_kernels.settings import Backend

_GPU = torch.cuda.is_available()
_FUSED: Backend = "triton" if _GPU else "cpu"
_SEPARATE = f"separate losses, {_FUSED}"
_EDGES = {"full": (80, 128), "small": (64,)} if _GPU else {"full": (80,), "small": (24,)}
_SAMPLES, _MODALITIES = 2, 4
_CASES = {"C4 float32": (BRATS_2018, torch.float32)}
if _GPU:
    _CASES |= {
        "C5 float32": (BRATS_2015, torch.float32),
        "C4 bfloat16": (BRATS_2018, torch.bfloat16),
        "C5 bfloat16": (BRATS_2015, torch.bfloat16),
    }


def _formulation(name: str, labels: Tensor, groups: CategoryGroups) -> Loss:
    if name == EAGER:
        return lambda logits: eager_objective(logits, labels, groups)
    if name == COMPILED:
        return compiled(lambda logits: eager_objective(logits, labels, groups))
    if name == _SEPARATE:
        return lambda logits: separate_objective(logits, labels, groups, backend=_FUSED)
    backend: Backend = "reference" if name == "reference" else _FUSED
    return lambda logits: fused_gss_objective(logits, labels, groups, backend=backend)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("edge", _EDGES[metafunc.config.getoption("--benchmark-size")])


@pytest.mark.parametrize(
    "name",
    [EAGER, pytest.param(COMPILED, marks=pytest.mark.long), "reference", _SEPARATE, pytest.param(_FUSED, id="fused")],
)
@pytest.mark.parametrize("case", _CASES)
def test_objective(measure: Measure, device: torch.device, size: Size, edge: int, case: str, name: str) -> None:
    groups, dtype = _CASES[case]
    if name == COMPILED and (reason := _why_not_compiled(case, device, size)):
        pytest.skip(reason)
    shape = (_SAMPLES, _MODALITIES, groups.num_categories, edge, edge, edge)
    logits = draw_logits(shape, dtype, device)
    labels = draw_labels((_SAMPLES, edge, edge, edge), groups.num_categories, device)
    dtype_name = str(dtype).removeprefix("torch.")
    measure(
        LossStep(_formulation(name, labels, groups), taking_turns(logits), label_bytes=labels.nbytes),
        group=f"objective, {' x '.join(map(str, shape[:3]))} x {edge}^3 {dtype_name}, labels uint8",
        name=name,
    )


def _why_not_compiled(case: str, device: torch.device, size: Size) -> str | None:
    if case != "C4 float32":
        return "compiled for C4 float32 only, to save time"
    return why_not_compiled(device, quick=size == "small")
