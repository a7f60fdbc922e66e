"""The machine that a result is from."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch


def pick_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"the CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def versions() -> dict[str, str | None]:
    """Of what the times depend on; None for what is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in ("torch", "triton", "numpy")}


def card() -> dict[str, str | float]:
    """The GPU; `benchmarks/gpu.sh` knows the driver."""
    return {
        "name": torch.cuda.get_device_name(),
        "driver": os.environ.get("GPU_DRIVER", "unknown"),
        "runtime": torch.version.cuda or torch.version.hip or "unknown",
        "memory_gb": torch.cuda.get_device_properties(0).total_memory / 1e9,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
