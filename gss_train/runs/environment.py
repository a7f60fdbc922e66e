"""What a run computes with: versions, processor and GPU."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch

_PACKAGES = (
    *("gss", "torch", "triton", "numpy", "scipy", "nibabel", "SimpleITK", "nilearn"),
    *("matplotlib", "tensorboard", "tyro", "rich"),
)


def describe_environment(device: torch.device) -> dict[str, Any]:
    """As JSON values; a package that is not installed has the version None."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {package: _version(package) for package in _PACKAGES},
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda,
        "processor": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
