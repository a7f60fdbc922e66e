"""Peak memory of a call, on the CPU or a GPU."""

from __future__ import annotations

from operator import itemgetter

import torch

from benchmarks.timing import Call


def peak_extra_bytes(call: Call, device: torch.device) -> int:
    """Most tensor memory that one call asks for at a time beyond what was allocated before it.

    Call it once before: workspaces that a library keeps from its first call on should not count.
    """
    if device.type == "cpu":
        return _peak_allocated(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = _requested_bytes("current", device)
    call()
    torch.cuda.synchronize(device)
    return _requested_bytes("peak", device) - before


def _requested_bytes(statistic: str, device: torch.device) -> int:
    # Not the blocks that the allocator hands out: it rounds them up, by as much as a megabyte.
    return int(torch.cuda.memory_stats(device)[f"requested_bytes.all.{statistic}"])


def _peak_allocated(call: Call) -> int:
    """Running peak of PyTorch's CPU allocations and frees, as its profiler reports them."""
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        call()
    # Not by `profiler.events()`, which makes a tree of all operations first, nor by the trace, a file of megabytes.
    assert profiler.kineto_results is not None
    events = (event for event in profiler.kineto_results.events() if event.name() == "[memory]")
    held = peak = 0
    for _, change in sorted(((event.start_ns(), event.nbytes()) for event in events), key=itemgetter(0)):
        held += change
        peak = max(peak, held)
    return peak
