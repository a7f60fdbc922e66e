"""What the losses allocate beyond the gradient: at most a mebibyte, at any size."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.losses import NAMES, Loss, make_loss, require_gpu_memory

_MEBIBYTE = 2**20
_LARGEST = (1, 4, 4, 384, 384, 384)
# Whether the logits come as a sequence.
_FORMS = [("gss", False), ("gss", True), ("objective", False), ("objective", True), ("segmentation", False)]


def requested_bytes(statistic: str) -> int:
    """What was asked for: the blocks that the allocator hands out are larger, by as much as a mebibyte."""
    return int(torch.cuda.memory_stats()[f"requested_bytes.all.{statistic}"])


def peaks(loss: Loss) -> tuple[int, int]:
    """Peak bytes beyond those of before, of the forward pass and of both passes."""
    torch.cuda.synchronize()
    start = requested_bytes("current")
    torch.cuda.reset_peak_memory_stats()
    value = loss.call()
    torch.cuda.synchronize()
    forward = requested_bytes("peak") - start
    gradients = torch.autograd.grad(value, loss.leaves)
    torch.cuda.synchronize()
    assert len(gradients) == len(loss.leaves)
    return forward, requested_bytes("peak") - start


def assert_needs_the_gradient_alone(loss: Loss) -> None:
    forward, both = peaks(loss)
    assert forward <= _MEBIBYTE
    assert loss.gradient_bytes <= both <= loss.gradient_bytes + _MEBIBYTE


@pytest.mark.parametrize(("name", "as_sequence"), _FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_needs_no_memory_but_the_gradient(dtype: torch.dtype, name: str, as_sequence: bool) -> None:
    for edge in (32, 61, 128):
        assert_needs_the_gradient_alone(make_loss(name, (2, 4, 4, edge, edge, edge), dtype, as_sequence=as_sequence))


@pytest.mark.xdist_group("most of the memory")
@pytest.mark.parametrize("name", NAMES)
def test_needs_no_memory_but_the_gradient_of_the_largest_volume(name: str) -> None:
    # Logits in float32, their gradient, and some room.
    require_gpu_memory(3 * 4 * torch.Size(_LARGEST).numel())
    assert_needs_the_gradient_alone(make_loss(name, _LARGEST))
