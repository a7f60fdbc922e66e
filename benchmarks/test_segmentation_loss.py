"""The supervised loss of one prediction: every backend that runs here, one-hot PyTorch, and `torch.compile` of that."""

from __future__ import annotations

import pytest
import torch

from benchmarks.baselines.segmentation_loss import eager_segmentation_loss
from benchmarks.drawing import draw_labels, draw_logits
from benchmarks.measuring import Measure, Size
from benchmarks.results_table import COMPILED, EAGER
from benchmarks.steps import Loss, LossStep, compiled, taking_turns, why_not_compiled
from gss_kernels import fused_segmentation_loss
from gss_kernels.settings import Backend, InputKind

_GPU = torch.cuda.is_available()
_FUSED: Backend = "triton" if _GPU else "cpu"
_EDGES = {"full": (80, 128), "small": (64,)} if _GPU else {"full": (80,), "small": (24,)}
_SAMPLES = 2
_CASES: dict[str, tuple[InputKind, int, torch.dtype]] = {
    "logits float32": ("logits", 4, torch.float32),
    "probabilities float32": ("probabilities", 4, torch.float32),
}
if _GPU:
    _CASES |= {
        "logits bfloat16": ("logits", 4, torch.bfloat16),
        "C5 logits float32": ("logits", 5, torch.float32),
        "C5 logits bfloat16": ("logits", 5, torch.bfloat16),
    }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("edge", _EDGES[metafunc.config.getoption("--benchmark-size")])


@pytest.mark.parametrize(
    "name",
    [EAGER, pytest.param(COMPILED, marks=pytest.mark.long), "reference", pytest.param(_FUSED, id="fused")],
)
@pytest.mark.parametrize("case", _CASES)
def test_segmentation_loss(measure: Measure, device: torch.device, size: Size, edge: int, case: str, name: str) -> None:
    input_kind, categories, dtype = _CASES[case]
    if name == COMPILED and (reason := _why_not_compiled(case, device, size)):
        pytest.skip(reason)
    prediction = draw_logits((_SAMPLES, 1, categories, edge, edge, edge), dtype, device).squeeze(1)
    if input_kind == "probabilities":
        prediction = prediction.softmax(dim=1)
    labels = draw_labels((_SAMPLES, edge, edge, edge), categories, device)

    def eager(prediction: torch.Tensor) -> torch.Tensor:
        return eager_segmentation_loss(prediction, labels, input_kind=input_kind)

    def fused(prediction: torch.Tensor) -> torch.Tensor:
        backend: Backend = "reference" if name == "reference" else _FUSED
        terms = fused_segmentation_loss(prediction, labels, input_kind=input_kind, backend=backend)
        return terms.cross_entropy + terms.dice

    formulations: dict[str, Loss] = {EAGER: eager}
    loss = compiled(eager) if name == COMPILED else formulations.get(name, fused)
    measure(
        LossStep(loss, taking_turns(prediction), label_bytes=labels.nbytes),
        group=f"supervised loss, {_SAMPLES} x {categories} x {edge}^3, {case.removeprefix('C5 ')}, labels uint8",
        name=name,
    )


def _why_not_compiled(case: str, device: torch.device, size: Size) -> str | None:
    if case != "logits float32":
        return "compiled for logits in float32 only, to save time"
    return why_not_compiled(device, quick=size == "small")
