"""Triton's interpreter in little more than a third of its time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from triton.language import core, semantic
from triton.runtime import interpreter


def prepare_the_language_once() -> None:
    """As the interpreter would at every call of every function of a kernel, for longer than these take to run."""
    prepare, prepared = interpreter._patch_lang, set[int]()

    def prepare_once(function: Callable[..., Any]) -> Any:
        module = id(function.__globals__)
        if module not in prepared:
            prepare(function)
            prepared.add(module)
        return interpreter._LangPatchScope()  # nothing to take back after a launch

    interpreter._patch_lang = prepare_once


def look_up_types_once() -> None:
    """As the interpreter would at every operation, by a table of all types that it builds anew."""
    look_up, known = interpreter._get_np_dtype, dict[str, np.dtype[Any]]()

    def look_up_once(dtype: Any) -> np.dtype[Any]:
        name = dtype.scalar.name
        if name not in known:
            known[name] = look_up(dtype)
        return known[name]

    interpreter._get_np_dtype = look_up_once


def measure_types_once() -> None:
    """As the interpreter would for every tensor, by objects for each of its sizes."""
    of_a_number = core.constexpr(1), core.tuple([])

    def initialise(self: Any, handle: object, type: Any) -> None:  # noqa: A002  (Triton's name)
        self.handle, self.type, self.dtype = handle, type, type.scalar
        if not type.is_block():
            self.numel, self.shape = of_a_number
            return
        if not hasattr(type, "measured"):
            sizes = core.tuple([core.constexpr(size) for size in type.shape])
            type.measured = core.constexpr(math.prod(type.shape)), sizes
        self.numel, self.shape = type.measured

    core.tensor.__init__ = initialise


def leave_equal_shapes_alone() -> None:
    """Where the interpreter would compare each size, and find nothing to broadcast."""
    broadcast = semantic.TritonSemantic.broadcast_impl_value

    def broadcast_if_unequal(self: Any, left: Any, right: Any) -> Any:
        blocks = left.type.is_block() and right.type.is_block()
        if blocks and left.type.shape.values == right.type.shape.values:
            return left, right
        return broadcast(self, left, right)

    semantic.TritonSemantic.broadcast_impl_value = broadcast_if_unequal


def work_once() -> None:
    """All of the above."""
    prepare_the_language_once()
    look_up_types_once()
    measure_types_once()
    leave_equal_shapes_alone()
