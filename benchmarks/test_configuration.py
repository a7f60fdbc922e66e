"""Alternatives to the launch table of the Triton backend, for the GPU at hand: `gpu.sh configuration`."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from benchmarks.drawing import draw_logits
from benchmarks.measuring import Measure, Size
from benchmarks.steps import LossStep, taking_turns
from gss_kernels import BRATS_2015, BRATS_2018, fused_gss_loss

_GPU = torch.cuda.is_available()
_EDGE = {"full": 128, "small": 64}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Of the forward and of the backward pass; None: the one in the table.
_VOXELS_AND_WARPS = [None, *itertools.product((1, 2, 4), (2, 4, 8))]
_PROGRAMS = (2, 3, 4, 6, 8)

pytestmark = [pytest.mark.long, pytest.mark.skipif(not _GPU, reason="the launch table is for GPUs")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A quick check takes the first alternative alone."""
    count = 1 if metafunc.config.getoption("--benchmark-size") == "small" else None
    metafunc.parametrize("programs", _PROGRAMS[:count])
    metafunc.parametrize("shape", _VOXELS_AND_WARPS[:count], ids=str)


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("categories", [4, 5])
def test_configuration(
    measure: Measure,
    device: torch.device,
    size: Size,
    categories: int,
    dtype: str,
    shape: tuple[int, int] | None,
    programs: int,
) -> None:
    from gss_kernels.triton.tuned import Launch, trying  # noqa: PLC0415  (Triton is optional)

    groups, edge = {4: BRATS_2018, 5: BRATS_2015}[categories], _EDGE[size]
    logits = draw_logits((2, 4, categories, edge, edge, edge), _DTYPES[dtype], device)
    launches = [Launch(name, 4, categories, False, logits.dtype, logits.device) for name in ("forward", "backward")]
    forward, backward = (launch.from_table() for launch in launches)
    if shape is not None:
        voxels, warps = shape
        forward = dataclasses.replace(forward, voxels_per_thread=voxels, num_warps=warps)
        backward = dataclasses.replace(backward, voxels_per_thread=voxels, num_warps=warps)
    forward = dataclasses.replace(forward, programs_per_multiprocessor=programs)
    with trying(dict(zip(launches, (forward, backward), strict=True))):
        measure(
            LossStep(lambda own: fused_gss_loss(own, groups, backend="triton"), taking_turns(logits)),
            group=f"launch table, 2 x 4 x {categories} x {edge}^3 {dtype}",
            name=f"{forward.voxels_per_thread} voxels, {forward.num_warps} warps, {programs} programs",
            memory=False,
        )
