"""The GSS loss: every backend that runs here, the plain formulations, and `torch.compile` of the vectorised one."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from torch import Tensor

from benchmarks.baselines.gss_loss import eager_loss, published_steps_loss
from benchmarks.drawing import draw_logits
from benchmarks.measuring import Measure, Size
from benchmarks.results_table import COMPILED, EAGER, PUBLISHED
from benchmarks.steps import Loss, LossStep, compiled, taking_turns, why_not_compiled
from gss_kernels import BRATS_2015, BRATS_2018, CategoryGroups, fused_gss_loss
from gss_kernels.settings import Backend

_GPU = torch.cuda.is_available()
_FUSED: Backend = "triton" if _GPU else "cpu"
_CUDA_GRAPH = "triton, CUDA graph"
# The plain formulations come first: the ratios of the others are taken to them.
_COMPILED, _FUSED_ROW = pytest.param(COMPILED, marks=pytest.mark.long), pytest.param(_FUSED, id="fused")
_NAMES = [EAGER, _COMPILED, PUBLISHED, "reference", _FUSED_ROW]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16} if _GPU else {"float32": torch.float32}
_EDGES = {"full": (80, 128), "small": (64,)} if _GPU else {"full": (80,), "small": (24,)}
_LAUNCH_BOUND_EDGE = {"full": 80, "small": 32}
_SCALING_EDGES = (
    {"full": (32, 64, 96, 128, 192, 256, 320, 384), "small": (32, 64)}
    if _GPU
    else {"full": (32, 64, 96), "small": (16, 24)}
)
_MODALITIES = 4
_GROUPS = {"C4": BRATS_2018, "C5": BRATS_2015}

pytestmark = pytest.mark.skipif(
    _GPU and importlib.util.find_spec("triton") is None, reason="the loss on a GPU needs the package triton"
)


def _formulation(name: str, groups: CategoryGroups) -> Loss:
    if name == EAGER:
        return lambda logits: eager_loss(logits, groups)
    if name == COMPILED:
        return compiled(lambda logits: eager_loss(logits, groups))
    if name == PUBLISHED:
        return lambda logits: published_steps_loss(logits, groups)
    backend: Backend = "reference" if name == "reference" else _FUSED
    return lambda logits: fused_gss_loss(logits, groups, backend=backend)


def _skip_what_does_not_apply(name: str, case: tuple[str, str], device: torch.device, size: Size) -> None:
    reason = why_not_compiled(device, quick=size == "small") if name == COMPILED else None
    if name == PUBLISHED and case != ("C4", "float32"):
        reason = "the public code is for four categories and float32"
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("categories", ["C4", pytest.param("C5", marks=pytest.mark.long)])
def test_loss(
    measure: Measure, device: torch.device, size: Size, categories: str, dtype: str, edge: int, name: str
) -> None:
    _skip_what_does_not_apply(name, (categories, dtype), device, size)
    groups, samples = _GROUPS[categories], 2
    shape = (samples, _MODALITIES, groups.num_categories, edge, edge, edge)
    logits = draw_logits(shape, _DTYPES[dtype], device)
    measure(
        LossStep(_formulation(name, groups), taking_turns(logits)),
        group=f"GSS loss, {samples} x {_MODALITIES} x {groups.num_categories} x {edge}^3 {dtype}",
        name=name,
    )


@pytest.mark.skipif(not _GPU, reason="on the CPU nothing is launched")
@pytest.mark.parametrize("name", [EAGER, _COMPILED, _FUSED_ROW, _CUDA_GRAPH])
def test_launch_bound_loss(measure: Measure, device: torch.device, size: Size, name: str) -> None:
    """A crop whose logits fit in the L2 cache, where a network that has just computed them leaves them."""
    groups, edge = BRATS_2018, _LAUNCH_BOUND_EDGE[size]
    shape = (1, _MODALITIES, groups.num_categories, edge, edge, edge)
    logits = draw_logits(shape, torch.float32, device).requires_grad_()
    group = f"GSS loss, launch-bound, 1 x {_MODALITIES} x {groups.num_categories} x {edge}^3 float32"
    if name == _CUDA_GRAPH:
        graph = _captured_step(logits, groups)
        measure(graph.replay, group=group, name=name, memory=False)
    else:
        measure(LossStep(_formulation(name, groups), [logits]), group=group, name=name, share_of_copy=False)


def _captured_step(logits: Tensor, groups: CategoryGroups) -> torch.cuda.CUDAGraph:
    """Forward and backward pass of the fused loss; every replay draws the same mask."""
    seed = torch.zeros((), dtype=torch.int64, device=logits.device)

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(fused_gss_loss(logits, groups, seed=seed, backend=_FUSED), logits)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "edge" in metafunc.fixturenames:
        edges = _SCALING_EDGES if metafunc.function is test_scaling else _EDGES
        metafunc.parametrize("edge", edges[metafunc.config.getoption("--benchmark-size")])


def test_scaling(measure: Measure, device: torch.device, edge: int) -> None:
    """Time per voxel and memory of the fused loss over the volume's size."""
    groups = BRATS_2018
    shape = (1, _MODALITIES, groups.num_categories, edge, edge, edge)
    _skip_unless_it_fits(4 * math.prod(shape))
    logits = draw_logits(shape, torch.float32, device)
    measure(
        LossStep(_formulation(_FUSED, groups), taking_turns(logits)),
        group=f"GSS loss over the size of the volume, 1 x {_MODALITIES} x {groups.num_categories} x edge^3 float32",
        name=f"{_FUSED}, edge {edge}",
        voxels=edge**3,
    )


def _skip_unless_it_fits(logits_bytes: int) -> None:
    if not _GPU:
        return
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    need = int(2.5 * logits_bytes) + 3 * 2**30  # logits and gradient; the buffers of the copies
    if free < need:
        pytest.skip(f"needs {need / 1e9:.1f} GB of the GPU's memory, {free / 1e9:.1f} GB are free")
