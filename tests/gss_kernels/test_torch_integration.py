"""How the losses get on with the rest of PyTorch: operators, torch.compile, autocast, checkpointing, DDP."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gss_kernels import (
    BRATS_2018,
    GSSLoss,
    SegmentationLoss,
    fused_gss_loss,
    fused_gss_objective,
    fused_segmentation_loss,
)
from gss_kernels.gss.call import GSSCall
from gss_kernels.settings import GSSSettings

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
_ROOT = Path(__file__).parents[2]
_SPATIAL = (5, 4, 3)


def gss(logits: Tensor, labels: Tensor, available: Tensor, seed: Tensor) -> Tensor:
    return fused_gss_loss(logits, BRATS_2018, seed=seed, available=available)


def gss_of_a_sequence(logits: Tensor, labels: Tensor, available: Tensor, seed: Tensor) -> Tensor:
    losses = fused_gss_loss(list(logits.unbind(1)), BRATS_2018, seed=seed, reduction="none", temperature=3.7)
    return losses.square().sum()


def gss_with_statistics(logits: Tensor, labels: Tensor, available: Tensor, seed: Tensor) -> Tensor:
    loss, statistics = fused_gss_loss(logits, BRATS_2018, seed=seed, return_stats=True)
    return loss * statistics.agreement.mean() + statistics.routes[0, 0]


def objective(logits: Tensor, labels: Tensor, available: Tensor, seed: Tensor) -> Tensor:
    return fused_gss_objective(logits, labels, BRATS_2018, seed=seed, available=available, supervised_weight=0.7)


def segmentation(logits: Tensor, labels: Tensor, available: Tensor, seed: Tensor) -> Tensor:
    terms = fused_segmentation_loss(logits[:, 0], labels, available=available[:, 0])
    return terms.cross_entropy + 2 * terms.dice


LOSSES = (gss, gss_of_a_sequence, gss_with_statistics, objective, segmentation)


def arguments(batch: int = 2, spatial: tuple[int, ...] = _SPATIAL) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch, 4, 4, *spatial, generator=generator)
    labels = torch.randint(0, 4, (batch, *spatial), generator=generator)
    available = torch.ones(batch, 4, dtype=torch.bool)
    available[0, 2] = False
    return logits.requires_grad_(), labels, available, torch.tensor(5)


def value_and_gradient(loss: Loss, inputs: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    value = loss(*inputs)
    (gradient,) = torch.autograd.grad(value, inputs[0])
    return value.detach(), gradient


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize(("supervised", "per_sample"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("stacked", [False, True])
def test_gss_operators(stacked: bool, supervised: bool, per_sample: bool) -> None:
    logits, labels, available, seed = arguments()
    tensors = [logits.detach()] if stacked else list(logits.detach().unbind(1))
    call = GSSCall(GSSSettings(), BRATS_2018.leaders, 0.7, 1.9, per_sample=per_sample, statistics=supervised)
    assert GSSCall.of_numbers(*call.numbers()) == call
    plain = (tensors, labels if supervised else None, available, None, seed, stacked, "cpu", *call.numbers())
    forward, backward = torch.ops.gss_kernels.gss_forward, torch.ops.gss_kernels.gss_backward
    torch.library.opcheck(forward, plain)
    value, results = forward(*plain)
    torch.library.opcheck(backward, (*plain, results, torch.full_like(value, 2.0)))


@pytest.mark.parametrize("ignore_index", [None, 2])
@pytest.mark.parametrize("from_logits", [False, True])
def test_segmentation_operators(from_logits: bool, ignore_index: int | None) -> None:
    logits, labels, available, _ = arguments()
    prediction = logits.detach()[:, 1].softmax(dim=1)
    plain = ([prediction], labels, available[:, 1], None, None, False, "cpu", from_logits, ignore_index)
    forward, backward = torch.ops.gss_kernels.segmentation_forward, torch.ops.gss_kernels.segmentation_backward
    torch.library.opcheck(forward, plain)
    torch.library.opcheck(backward, (*plain, forward(*plain)[1], torch.randn(2)))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("loss", LOSSES)
def test_compiles_without_graph_breaks(loss: Loss, dynamic: bool) -> None:
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for batch, spatial in ((2, _SPATIAL), (3, (5, 6, 7))) if dynamic else ((2, _SPATIAL),):
        inputs = arguments(batch, spatial)
        got, want = value_and_gradient(compiled, inputs), value_and_gradient(loss, inputs)
        torch.testing.assert_close(got[0], want[0])
        torch.testing.assert_close(got[1], want[1], rtol=1e-5, atol=1e-8)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler for inductor")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # inductor scripts
def test_compiles_with_inductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # Else it first tries vector instructions, in processes of their own, for longer than all the rest takes.
    monkeypatch.setattr("torch._inductor.config.cpp.vec_isa_ok", False)

    def scaled(logits: Tensor, labels: Tensor, available: Tensor, seed: Tensor) -> Tensor:
        return objective(logits * 1.5 + 1, labels, available, seed) * 2

    inputs = arguments()
    got = value_and_gradient(torch.compile(scaled, fullgraph=True), inputs)
    want = value_and_gradient(scaled, inputs)
    torch.testing.assert_close(got[0], want[0])
    torch.testing.assert_close(got[1], want[1], rtol=1e-5, atol=1e-8)


def test_compiled_seeds_follow_the_generator() -> None:
    compiled = torch.compile(lambda logits: fused_gss_loss(logits, BRATS_2018), fullgraph=True, backend="aot_eager")
    logits = arguments()[0].detach()

    def draw() -> list[Tensor]:
        torch.manual_seed(1)
        return [compiled(logits) for _ in range(2)]

    first, again = draw(), draw()
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(*first)


def test_compiled_labels_are_still_checked() -> None:
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")
    logits, labels, available, seed = arguments()
    with pytest.raises(ValueError, match="labels: got values from 0 to 4"):
        compiled(logits, labels.index_fill(1, torch.tensor(1), 4), available, seed)


@pytest.mark.parametrize("loss", LOSSES)
def test_autocast_changes_nothing(loss: Loss) -> None:
    inputs = arguments()
    want = value_and_gradient(loss, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*inputs)
    (gradient,) = torch.autograd.grad(value, inputs[0])
    assert torch.equal(value, want[0])
    assert torch.equal(gradient, want[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # jvp scripts
@pytest.mark.parametrize("transform", ["grad", "vmap", "jvp"])
@pytest.mark.parametrize("loss", [gss, objective, segmentation])
def test_transforms_are_refused_with_advice(loss: Loss, transform: str) -> None:
    logits, *rest = arguments()
    logits = logits.detach()
    calls: dict[str, Callable[[], object]] = {
        "grad": lambda: torch.func.grad(loss)(logits, *rest),
        "vmap": lambda: torch.vmap(lambda own: loss(own, *rest))(logits[None]),
        "jvp": lambda: torch.func.jvp(lambda own: loss(own, *rest), (logits,), (logits,)),
    }
    with pytest.raises(RuntimeError, match=r"torch\.func.*backend='reference'"):
        calls[transform]()


def test_reference_takes_the_place_in_transforms() -> None:
    logits, labels, available, seed = arguments()
    options: dict[str, Any] = {"seed": seed, "available": available, "backend": "reference"}
    gradient = torch.func.grad(lambda own: fused_gss_objective(own, labels, BRATS_2018, **options))(logits.detach())
    (want,) = torch.autograd.grad(fused_gss_objective(logits, labels, BRATS_2018, **options), logits)
    torch.testing.assert_close(gradient, want)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing_draws_the_same_mask_again(use_reentrant: bool) -> None:
    logits = arguments()[0]

    def loss(own: Tensor) -> Tensor:
        return fused_gss_loss(own * 2, BRATS_2018, mask_ratio=0.5)

    gradients = []
    for wrapped in (loss, lambda own: checkpoint(loss, own, use_reentrant=use_reentrant)):
        torch.manual_seed(3)
        logits.grad = None
        wrapped(logits).backward()
        assert logits.grad is not None
        gradients.append(logits.grad.clone())
    assert torch.equal(*gradients)


def test_modules_are_copied_and_pickled() -> None:
    logits, labels, available, seed = arguments()
    module = GSSLoss(BRATS_2018, temperature=4.0, reduction="none")
    supervised = SegmentationLoss("probabilities")
    for copied in (copy.deepcopy, lambda own: pickle.loads(pickle.dumps(own))):
        assert torch.equal(
            copied(module)(logits, seed=seed, available=available), module(logits, seed=seed, available=available)
        )
        prediction = logits[:, 0].softmax(dim=1)
        assert torch.equal(copied(supervised)(prediction, labels), supervised(prediction, labels))
