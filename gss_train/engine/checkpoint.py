"""Checkpoints: written so that a crash leaves the old one, read without executing what is in them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from gss_train.errors import UserError
from gss_train.models import CheckpointReport, load_public_checkpoint

_FORMAT = "gss-checkpoint-1"
# What PyTorch's reader raises on files that are cut, altered, or hold more than weights.
_DAMAGES = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    AssertionError,
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
)


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message names the file."""


def save_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Write weights, optimiser state and `progress` (plain values) to `path`, replacing it at once or not at all.

    Raises:
        OSError: the file cannot be written; the old one is still there.
    """
    partial = path.with_name(path.name + ".partial")
    content = {
        "format": _FORMAT,
        "weights": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "progress": progress,
    }
    try:
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # PyTorch's writer may hide the system's error behind one of its own, and neither names the file.
        partial.unlink(missing_ok=True)
        raise OSError(f"{path}: cannot be written, is the disk full? {error}") from error
    partial.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this software or of the published networks, onto the CPU.

    Nothing in the file is executed: apart from tensors and plain values, only the NumPy scalar (the learning rate)
    that the published checkpoints hold is let in.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything else.
    """
    try:
        with torch.serialization.safe_globals(_numpy_scalar_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file, need a checkpoint") from error
    except _DAMAGES as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint of weights: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, need a dictionary of weights")
    return content


@dataclass(frozen=True)
class LoadedWeights:
    """What `load_weights` found.

    Attributes:
        public_keys: which keys of a public checkpoint were used; None for a checkpoint of this software.
        training_subjects: names of the subjects that the weights were trained on, as far as known.
    """

    public_keys: CheckpointReport | None
    training_subjects: frozenset[str]


def load_weights(network: nn.Module, path: Path) -> LoadedWeights:
    """Load the weights of a checkpoint into a network of the same shape.

    Raises:
        CheckpointError: the file cannot be read, or its weights do not fit the network.
    """
    content = read_checkpoint(path)
    try:
        if content.get("format") == _FORMAT:
            network.load_state_dict(content["weights"])
            return LoadedWeights(None, frozenset(content["progress"].get("training_subjects", ())))
        report = load_public_checkpoint(network, content)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: does not fit the network: {error}") from error
    if report.missing:
        raise CheckpointError(
            f"{path}: lacks {len(report.missing)} weights of the network, such as {report.missing[0]}"
        )
    return LoadedWeights(report, frozenset())


def _numpy_scalar_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    scalar = cast("Callable[..., Any]", np.float64(0).__reduce__()[0])
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype(np.float32)),
        type(np.dtype(np.float64)),
    ]
