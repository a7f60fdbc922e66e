"""The device that a result is from."""

from __future__ import annotations

import platform
from typing import Any

import torch


def pick_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"the CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def facts(device: torch.device) -> dict[str, Any]:
    """The device in numbers; of the CPU there is its name alone."""
    if device.type == "cpu":
        return {"name": describe(device)}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "l2_cache_mb": properties.L2_cache_size / 1e6,
        "memory_gb": properties.total_memory / 1e9,
        "runtime": torch.version.cuda or torch.version.hip or "unknown",
    }
