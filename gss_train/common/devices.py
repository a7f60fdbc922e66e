"""What a command computes on, and the memory that it takes there."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from gss_train.common.errors import UserError

_KILOBYTE = 1024
_BYTES_OF_RESIDENT_UNIT = 1 if sys.platform == "darwin" else _KILOBYTE


def device_type(name: str) -> str:
    """The kind of the device of the flag `--device`, "cpu" or "cuda"."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name.partition(":")[0]


def pick_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device of the flag `--device`.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU if there is one.
        local_rank: of this process among several on this machine, which take one GPU each; None alone.

    Raises:
        UserError: there is no such device, or it cannot be used here.
    """
    chosen = device_type(name) if name == "auto" else name
    if local_rank is not None:
        kind = device_type(name)
        if ":" in name:
            raise UserError(f"--device: got {name!r} below torchrun, need {kind!r}: each process takes its own")
        chosen = f"cuda:{local_rank}" if kind == "cuda" else kind
    try:
        device = torch.device(chosen)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"--device: got {name!r}, which cannot be used here: {reason}") from error
    return device


def peak_memory_bytes(device: torch.device) -> int:
    """The most that this process has held: on a GPU by PyTorch's allocator, else of resident memory."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Of this program: on Linux, `ru_maxrss` counts what the process was before it became this program as well."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES_OF_RESIDENT_UNIT
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * _KILOBYTE
