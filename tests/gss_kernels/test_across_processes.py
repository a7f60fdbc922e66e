"""`process_group`: what two processes make of a batch that is cut in two, against the reference on the whole of it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from gss_kernels import BRATS_2018, fused_gss_loss, fused_gss_objective, fused_segmentation_loss
from tests.gss_kernels.across_processes import (
    CALLS,
    GSS_WEIGHT,
    SEED,
    SPATIAL,
    SUPERVISED_WEIGHT,
    Call,
    Tensors,
    network_gradient,
)

_ROOT = Path(__file__).parents[2]
_TRITON = importlib.util.find_spec("triton") is not None
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
_NEEDS_TRITON = pytest.mark.skipif(not _TRITON, reason="Triton is not installed")


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensors]]:
    """What each of the two processes leaves."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"TRITON_INTERPRET": "1"} if _TRITON else {})
    command = [sys.executable, "-m", "tests.gss_kernels.across_processes", str(folder)]
    done = subprocess.run(
        command, cwd=_ROOT, env=environment, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def expected_segmentation(call: Call) -> tuple[Tensors, Tensor]:
    """The terms of the whole batch, and its gradient under the sum of the processes' upstream gradients."""
    prediction, labels = call.tensors()
    leaf = prediction.double().requires_grad_()
    available = call.samples_available()
    assert call.input_kind is not None
    options: dict[str, Any] = {"available": available, "ignore_index": call.ignored, "backend": "reference"}
    terms = fused_segmentation_loss(leaf, labels, input_kind=call.input_kind, **options)
    upstream = torch.tensor(call.upstream, dtype=torch.float64).sum(dim=0)
    (gradient,) = torch.autograd.grad(torch.stack(terms), leaf, upstream)
    return {name: term.detach() for name, term in terms._asdict().items()}, gradient


def expected_objective(call: Call) -> tuple[Tensors, Tensor]:
    """Supervised terms of the whole batch and the GSS losses of its parts, `[2]`; the gradient under all upstream."""
    prediction, labels = call.tensors()
    leaf = prediction.double().requires_grad_()
    available = call.samples_available()
    options: dict[str, Any] = {"temperature": call.temperature, "seed": SEED, "available": available}
    supervised = [
        fused_segmentation_loss(
            leaf[:, m],
            labels,
            available=None if available is None else available[:, m],
            ignore_index=call.ignored,
            backend="reference",
        )
        for m in range(4)
    ]
    losses = fused_gss_loss(leaf, BRATS_2018, **options, reduction="none", backend="reference")
    gss = torch.stack([losses[part].sum(dim=1).mean() for part in call.parts])
    cross_entropy, dice = (torch.stack(terms) for terms in zip(*supervised, strict=True))
    totals = SUPERVISED_WEIGHT * (cross_entropy + dice).sum() + GSS_WEIGHT * gss
    upstream = torch.tensor(call.upstream, dtype=torch.float64)[:, 0]
    (gradient,) = torch.autograd.grad(totals, leaf, upstream)
    terms = {"total": totals, "cross_entropy": cross_entropy, "dice": dice, "gss": gss}
    return {name: term.detach() for name, term in terms.items()}, gradient


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=_NEEDS_TRITON if call.backend == "triton" else ()) for name, call in CALLS.items()],
)
def test_two_processes_are_one_batch(processes: list[dict[str, Tensors]], name: str) -> None:
    call = CALLS[name]
    want, gradient = expected_objective(call) if call.input_kind is None else expected_segmentation(call)
    tolerance = _TOLERANCE[call.dtype]
    for rank, part in enumerate(call.parts):
        got = processes[rank][name]
        for term, values in want.items():
            value = values[rank] if term in ("total", "gss") else values
            assert got[term].dtype == call.dtype
            torch.testing.assert_close(got[term].double(), value, rtol=tolerance, atol=tolerance)
        largest = float(gradient.abs().max())
        torch.testing.assert_close(
            got["gradient"].double(), gradient[part], rtol=tolerance, atol=tolerance * max(largest, 1e-3)
        )


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.backend == "cpu"])
def test_processes_agree_to_the_bit(processes: list[dict[str, Tensors]], name: str) -> None:
    one, other = (results[name] for results in processes)
    assert all(torch.equal(one[term], other[term]) for term in ("cross_entropy", "dice"))


def test_modality_of_no_process_has_no_loss(processes: list[dict[str, Tensors]]) -> None:
    for results in processes:
        assert results["objective_32_gaps"]["cross_entropy"][2] == 0
        assert results["objective_32_gaps"]["dice"][2] == 0
        assert not results["logits_32_nobody"]["gradient"].any()


def test_nan_reaches_every_process(processes: list[dict[str, Tensors]]) -> None:
    for results in processes:
        assert results["nan"]["cross_entropy"].isnan()
        assert results["nan"]["dice"].isnan()


@pytest.mark.parametrize(("name", "gss_alone"), [("network", False), ("network, GSS alone", True)])
def test_distributed_data_parallel_gives_the_gradient_of_the_whole_batch(
    processes: list[dict[str, Tensors]], name: str, gss_alone: bool
) -> None:
    want = network_gradient(slice(0, 4), None, gss_alone=gss_alone)
    for results in processes:
        torch.testing.assert_close(results[name]["gradient"], want, rtol=1e-5, atol=1e-6)


@pytest.fixture
def group() -> Iterator[distributed.ProcessGroup]:
    """Of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    assert distributed.group.WORLD is not None
    yield distributed.group.WORLD
    distributed.destroy_process_group()


_LOGITS = torch.randn(2, 4, 4, *SPATIAL, generator=torch.Generator().manual_seed(0))
_LABELS = torch.randint(0, 4, (2, *SPATIAL), generator=torch.Generator().manual_seed(1))


def segmentation(logits: Tensor, **options: Any) -> Tensor:
    return fused_segmentation_loss(logits[:, 0], _LABELS, **options).dice


def objective(logits: Tensor, **options: Any) -> Tensor:
    return fused_gss_objective(logits, _LABELS, BRATS_2018, seed=3, **options)


FUNCTIONS = pytest.mark.parametrize("function", [segmentation, objective])


@FUNCTIONS
def test_group_of_one_process_changes_nothing(group: distributed.ProcessGroup, function: Callable[..., Tensor]) -> None:
    """Nor does it in a second backward pass."""
    leaf = _LOGITS.double().requires_grad_()
    want = function(leaf)
    (gradient,) = torch.autograd.grad(want, leaf)
    got = function(leaf, process_group=group)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    for _ in range(2):
        (own,) = torch.autograd.grad(got, leaf, retain_graph=True)
        torch.testing.assert_close(own, gradient, rtol=1e-12, atol=1e-15)


@FUNCTIONS
def test_second_derivatives_are_refused(group: distributed.ProcessGroup, function: Callable[..., Tensor]) -> None:
    leaf = _LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf, process_group=group), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        gradient.sum().backward()


@FUNCTIONS
@pytest.mark.parametrize("value", [0, "WORLD", -100, object()])
def test_group_that_is_none(function: Callable[..., Tensor], value: Any) -> None:
    message = f"process_group: got {type(value).__name__}, need a torch.distributed.ProcessGroup that this process"
    with pytest.raises(ValueError, match=f"^{re.escape(message)} belongs to, or None$"):
        function(_LOGITS, process_group=value)


@FUNCTIONS
def test_reference_takes_no_group(group: distributed.ProcessGroup, function: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"^process_group: got a group with backend 'reference', need backend 'cpu'"):
        function(_LOGITS, process_group=group, backend="reference")


@FUNCTIONS
def test_compiled_graphs_take_no_group(group: distributed.ProcessGroup, function: Callable[..., Tensor]) -> None:
    def call(logits: Tensor) -> Tensor:
        return function(2 * logits, process_group=group)

    torch.compiler.reset()
    with pytest.raises(RuntimeError, match=r"process_group: got a group in a graph of torch\.compile"):
        torch.compile(call, fullgraph=True, backend="aot_eager")(_LOGITS)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(call, backend="aot_eager")(_LOGITS), function(2 * _LOGITS))
