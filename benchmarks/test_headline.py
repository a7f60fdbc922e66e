"""The figures to look at first: the fused losses in the form in which training calls them."""

from __future__ import annotations

import pytest
import torch

from benchmarks.loss_forms import LOSSES, LossForm, LossName
from benchmarks.measuring import Measure
from gss_kernels.settings import Backend

_GPU = torch.cuda.is_available()
_FUSED: Backend = "triton" if _GPU else "cpu"
# The size whose figures are wanted first comes first.
_EDGES = {"full": (80, 128), "small": (64,)} if _GPU else {"full": (80,), "small": (24,)}
_DTYPES = ("float32", "bfloat16") if _GPU else ("float32",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("edge", _EDGES[metafunc.config.getoption("--benchmark-size")])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", _DTYPES)
def test_headline(measure: Measure, device: torch.device, edge: int, dtype: str, loss: LossName) -> None:
    form = LossForm(loss, 4, dtype, edge)
    measure(
        form.step(device, _FUSED),
        group=f"as in training, 2 x 4 x 4 x {edge}^3 {dtype}, a tensor for each modality, labels uint8",
        name=f"{loss}, {_FUSED}",
    )
