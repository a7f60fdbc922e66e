"""The folder that a run leaves behind."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from gss_train.errors import UserError

_PACKAGES = (
    "gss",
    "torch",
    "triton",
    "numpy",
    "scipy",
    "nibabel",
    "SimpleITK",
    "nilearn",
    "matplotlib",
    "tyro",
    "rich",
)


def refuse_used_folder(path: Path) -> None:
    """Raise a UserError if `path` is a file or a folder that is not empty, so that no run is overwritten."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--output: {path} exists and is not an empty folder; name another one")


class RunFolder:
    """Writes what a run produces.

    Args:
        path: made if missing; has to be empty.

    Raises:
        UserError: it is not empty.
    """

    def __init__(self, path: Path) -> None:
        refuse_used_folder(path)
        path.mkdir(parents=True, exist_ok=True)
        self.path = path

    @property
    def checkpoint(self) -> Path:
        """The latest weights."""
        return self.path / "checkpoint.pt"

    def stage_checkpoint(self, stage: str) -> Path:
        """The weights at the end of a stage, such as `gss-round-1.pt`."""
        return self.path / f"{stage.lower().replace(' ', '-')}.pt"

    @property
    def summary(self) -> Path:
        """The picture of the run."""
        return self.path / "summary.png"

    def write_json(self, name: str, content: object) -> None:
        """Write a JSON file."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        (self.path / name).write_text(text, encoding="utf-8")

    def log_metrics(self, record: dict[str, Any]) -> None:
        """Append one line to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, processor and GPU, as JSON values."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions,
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda,
        "processor": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
