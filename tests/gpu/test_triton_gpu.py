"""The Triton backend on a GPU."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from gss_kernels import BRATS_2015, BRATS_2018, fused_gss_loss, gss_soft_targets
from tests.gss_kernels.behaviours import EVERYWHERE, FUSED, Behaviour, loss_and_gradient, random_tensor
from tests.gss_kernels.cases import TABLE, check, run

# Exponentials and logarithms are the hardware's approximations, good to about two units in the last place.
_ARITHMETIC = 1e-4
_MEBIBYTE = 2**20
# 2 MiB times a whole number, also for one modality: the allocator rounds nothing up.
_VOLUME = (2, 4, 4, 64, 64, 64)


def normal_logits(shape: tuple[int, ...] = _VOLUME, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return (4 * torch.randn(shape, device="cuda", generator=generator)).to(dtype)


@contextmanager
def synchronisation_forbidden() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode announces itself as a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", TABLE)
def test_case_agrees_with_oracle(name: str) -> None:
    check(TABLE[name], run(TABLE[name], "triton", "cuda"), arithmetic=_ARITHMETIC)


@pytest.mark.parametrize("name", ["brats_2018", "released", "available_few", "temperature_3.7"])
def test_reference_in_float64_agrees_with_oracle(name: str) -> None:
    case = dataclasses.replace(TABLE[name], dtype=torch.float64)
    check(case, run(case, "reference", "cuda"))


@pytest.mark.parametrize("behaviour", EVERYWHERE + FUSED, ids=lambda behaviour: behaviour.__name__)
def test_behaviour(behaviour: Behaviour) -> None:
    behaviour("triton", "cuda")


def test_auto_is_triton_on_a_gpu() -> None:
    logits = random_tensor("cuda")
    one, other = (fused_gss_loss(logits, BRATS_2018, seed=1, backend=name) for name in ("auto", "triton"))
    assert torch.equal(one, other)


def test_backends_that_do_not_take_the_logits() -> None:
    logits = random_tensor("cuda")
    with pytest.raises(ValueError, match="backend: got 'cpu'"):
        fused_gss_loss(logits, BRATS_2018, backend="cpu")
    with pytest.raises(ValueError, match=r"logits: got dtype torch.float64"):
        fused_gss_loss(logits.double(), BRATS_2018)
    with pytest.raises(ValueError, match=r"seed: .*device"):
        fused_gss_loss(logits, BRATS_2018, seed=torch.tensor(1))
    with pytest.raises(ValueError, match=r"available: .*device"):
        fused_gss_loss(logits, BRATS_2018, available=torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_volume_agrees_with_the_cpu(dtype: torch.dtype) -> None:
    """Rounding flips the vote of a few voxels in a million; those alone may differ."""
    logits = normal_logits((2, 4, 5, 61, 64, 67), dtype)
    options: dict[str, Any] = {"seed": 2**40 + 3, "mask_ratio": 0.2}
    losses, gradient = loss_and_gradient(logits, "triton", BRATS_2015, **options)
    want, want_gradient = loss_and_gradient(logits.cpu(), "cpu", BRATS_2015, **options)
    torch.testing.assert_close(losses.cpu(), want, rtol=1e-4, atol=1e-6)
    gradient, want_gradient = gradient.cpu().double(), want_gradient.double()
    scale = float(want_gradient.abs().max())
    unequal = ~torch.isclose(gradient, want_gradient, rtol=2**-7, atol=1e-3 * scale)
    assert int(unequal.any(dim=2).sum()) <= 1e-5 * unequal.any(dim=2).numel()
    target = gss_soft_targets(logits, BRATS_2015).cpu()
    unequal = ~torch.isclose(target, gss_soft_targets(logits.cpu(), BRATS_2015), rtol=1e-4, atol=1e-5)
    assert int(unequal.any(dim=1).sum()) <= 1e-5 * unequal.any(dim=1).numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repeats_to_the_bit(dtype: torch.dtype) -> None:
    logits = normal_logits(dtype=dtype)
    first, again = (loss_and_gradient(logits, "triton", seed=4, mask_ratio=0.2) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


@pytest.mark.parametrize("arguments", ["no_seed", "int_seed", "tensor_seed", "voxel_mask", "available", "sequence"])
def test_host_never_waits_for_the_gpu(arguments: str) -> None:
    logits = normal_logits((2, 4, 4, 16, 16, 16))
    choices: dict[str, dict[str, Any]] = {
        "no_seed": {},
        "int_seed": {"seed": 2**63 + 1},
        "tensor_seed": {"seed": torch.tensor(5, device="cuda")},
        "voxel_mask": {"voxel_mask": logits[:, :, 0] > 0},
        "available": {"available": torch.ones(2, 4, dtype=torch.bool, device="cuda"), "seed": 1},
        "sequence": {"seed": 1},
    }
    options = choices[arguments]
    leaves = [leaf.clone().requires_grad_() for leaf in logits.unbind(1)] if arguments == "sequence" else [logits]
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def step() -> None:
        inputs = leaves if arguments == "sequence" else leaves[0]
        loss = fused_gss_loss(inputs, BRATS_2018, **options)
        torch.autograd.grad(loss, leaves)
        target_options = {name: value for name, value in options.items() if name == "available"}
        gss_soft_targets(inputs, BRATS_2018, **target_options)

    step()  # compiles
    torch.cuda.synchronize()
    with synchronisation_forbidden():
        step()


def test_can_be_captured_in_a_graph() -> None:
    logits = normal_logits((2, 4, 4, 24, 24, 24)).requires_grad_()
    seed = torch.tensor(0, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        loss = fused_gss_loss(logits, BRATS_2018, seed=seed)
        (gradient,) = torch.autograd.grad(loss, logits)
        return loss.detach(), gradient

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for value in (7, 8):
        with torch.no_grad():
            logits.copy_(normal_logits((2, 4, 4, 24, 24, 24), seed=value))
        seed.fill_(value)
        graph.replay()
        replayed = [tensor.clone() for tensor in captured]
        for one, other in zip(replayed, step(), strict=True):
            assert torch.equal(one, other)
        assert replayed[1].any()


@pytest.mark.parametrize("as_sequence", [False, True], ids=["stacked", "sequence"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_needs_no_memory_but_the_gradient(dtype: torch.dtype, as_sequence: bool) -> None:
    stacked = normal_logits(dtype=dtype)
    tensors = [part.contiguous() for part in stacked.unbind(1)] if as_sequence else [stacked]
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    inputs = leaves if as_sequence else leaves[0]

    def peak_beyond_the_start() -> tuple[int, int]:
        torch.cuda.synchronize()
        start = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss = fused_gss_loss(inputs, BRATS_2018, seed=0)
        torch.cuda.synchronize()
        forward = torch.cuda.max_memory_allocated() - start
        gradients = torch.autograd.grad(loss, leaves)
        torch.cuda.synchronize()
        assert len(gradients) == len(leaves)
        return forward, torch.cuda.max_memory_allocated() - start

    peak_beyond_the_start()  # compiles
    forward, both = peak_beyond_the_start()
    gradient = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    assert forward <= _MEBIBYTE
    assert gradient <= both <= gradient + _MEBIBYTE
