"""How the losses are launched: without waiting, in few launches, in a CUDA graph."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from gss_kernels import BRATS_2018, fused_gss_loss, gss_soft_targets
from tests.gpu.losses import NAMES, Loss, make_loss, normal_logits

_SHAPE = (2, 4, 4, 16, 16, 16)
_ARGUMENTS = ("no_seed", "int_seed", "tensor_seed", "voxel_mask", "available", "sequence")


@contextmanager
def synchronisation_forbidden() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode announces itself as a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def assert_host_does_not_wait(step: Callable[[], object]) -> None:
    step()  # compiles
    torch.cuda.synchronize()
    with synchronisation_forbidden():
        step()


def group_options(arguments: str) -> dict[str, Any]:
    """Arguments of `make_loss` for the GSS loss and the objective."""
    choices: dict[str, dict[str, Any]] = {
        "no_seed": {},
        "int_seed": {"seed": 2**63 + 1},
        "tensor_seed": {"seed": torch.tensor(5, device="cuda")},
        "voxel_mask": {"voxel_mask": normal_logits(_SHAPE)[:, :, 0] > 0},
        "available": {"available": torch.tensor([[True] * 4, [True, False, False, False]], device="cuda"), "seed": 1},
        "sequence": {"seed": 1, "as_sequence": True},
    }
    return choices[arguments]


@pytest.mark.parametrize("arguments", _ARGUMENTS)
@pytest.mark.parametrize("name", ["gss", "objective"])
def test_host_never_waits_for_the_gpu(name: str, arguments: str) -> None:
    assert_host_does_not_wait(make_loss(name, _SHAPE, **group_options(arguments)).step)


@pytest.mark.parametrize("input_kind", ["logits", "probabilities"])
@pytest.mark.parametrize("available", [None, [True, False]])
def test_host_never_waits_for_the_segmentation_loss(available: list[bool] | None, input_kind: str) -> None:
    options: dict[str, Any] = {"input_kind": input_kind}
    if available is not None:
        options["available"] = torch.tensor(available, device="cuda")
    logits = normal_logits(_SHAPE)
    logits = logits if input_kind == "logits" else logits.softmax(dim=2)
    assert_host_does_not_wait(make_loss("segmentation", _SHAPE, logits=logits, **options).step)


def test_host_never_waits_for_statistics_and_targets() -> None:
    logits = normal_logits(_SHAPE).requires_grad_()

    def step() -> None:
        loss, _ = fused_gss_loss(logits, BRATS_2018, return_stats=True)
        torch.autograd.grad(loss, logits)
        gss_soft_targets(logits, BRATS_2018)

    assert_host_does_not_wait(step)


def capture(loss: Loss) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
    """A step as a graph, after one that compiles on another stream, as capturing asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        loss.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = loss.step()
    return graph, captured


@pytest.mark.parametrize("name", NAMES)
def test_can_be_captured_in_a_graph(name: str) -> None:
    """And takes new logits and a new seed at every replay."""
    shape = (2, 4, 4, 24, 24, 24)
    seed = torch.tensor(0, device="cuda")
    loss = make_loss(name, shape, **({} if name == "segmentation" else {"seed": seed}))
    graph, captured = capture(loss)
    replays = []
    for number in (7, 8):
        with torch.no_grad():
            loss.leaves[0].copy_(normal_logits(tuple(loss.leaves[0].shape), seed=number))
        seed.fill_(number)
        graph.replay()
        replays.append([tensor.clone() for tensor in captured])
        for one, other in zip(replays[-1], loss.step(), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(replays[0][1], replays[1][1])


def gpu_activities(call: Callable[[], object]) -> list[str]:
    """Names of the kernels, copies and fills that a call runs on the GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler's own
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            call()
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return [
        event["name"] for event in events if str(event.get("cat")).lower() in ("kernel", "gpu_memcpy", "gpu_memset")
    ]


@pytest.mark.parametrize("seed", [None, 3], ids=["drawn_seed", "given_seed"])
@pytest.mark.parametrize("as_sequence", [False, True], ids=["stacked", "sequence"])
@pytest.mark.parametrize("name", ["gss", "objective"])
def test_four_launches_at_most(name: str, as_sequence: bool, seed: int | None) -> None:
    """Seed, forward pass, its end, backward pass; filling the first gradient with ones is autograd's own."""
    loss = make_loss(name, (1, 4, 4, 80, 80, 80), as_sequence=as_sequence, seed=seed)
    upstream = torch.ones((), device="cuda")

    def step() -> None:
        torch.autograd.grad(loss.call(), loss.leaves, upstream)

    step()  # compiles
    activities = gpu_activities(step)
    if not activities:
        pytest.skip("torch.profiler sees no activity of this GPU: the launches were not counted")
    assert len(activities) <= 4, activities
    assert any("gss_forward_kernel" in name for name in activities), activities
    assert any("gss_backward_kernel" in name for name in activities), activities
