"""Losses as steps of a forward and a backward pass, over inputs that take turns."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]


class FloorBytes(NamedTuple):
    """Bytes that each pass has to move, whatever the implementation."""

    forward: int
    backward: int


class LossStep:
    """Forward and backward pass of a loss.

    Attributes:
        floor: the forward pass reads input and labels, the backward pass too, and writes the gradient.
        gradient_bytes: of one step.
    """

    def __init__(self, loss: Loss, inputs: list[Tensor], *, label_bytes: int = 0) -> None:
        self._loss = loss
        self._turns: Iterator[Tensor] = itertools.cycle([tensor.detach().requires_grad_() for tensor in inputs])
        self.gradient_bytes = inputs[0].nbytes
        self.floor = FloorBytes(inputs[0].nbytes + label_bytes, 2 * inputs[0].nbytes + label_bytes)

    def __call__(self) -> None:
        self.backward(*self.forward())

    def forward(self) -> tuple[Tensor, Tensor]:
        """The loss of the input whose turn it is, and that input."""
        leaf = next(self._turns)
        return self._loss(leaf), leaf

    def backward(self, value: Tensor, leaf: Tensor) -> None:
        """The gradient, which is let go."""
        torch.autograd.grad(value, leaf)


def taking_turns(tensor: Tensor) -> list[Tensor]:
    """The tensor, on a GPU with as many copies as keep its L2 cache from holding what the next call reads."""
    if tensor.device.type == "cpu":
        return [tensor]
    cache = torch.cuda.get_device_properties(tensor.device).L2_cache_size
    count = min(math.ceil(4 * cache / tensor.nbytes), 64)
    return [tensor, *(tensor.clone() for _ in range(count - 1))]


def compiled(loss: Loss) -> Loss:
    """The loss by `torch.compile` in its default mode, for one shape; it compiles when it is first called."""
    torch.compiler.reset()
    return torch.compile(loss, dynamic=False)


def why_not_compiled(device: torch.device, *, quick: bool) -> str | None:
    """The reason to leave `torch.compile` out, None where it can be tried."""
    if device.type == "cuda":
        return None
    if quick:
        return "compiling takes too long for a quick check"
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else f"torch.compile needs a C++ compiler on the CPU, {compiler!r} is missing"
