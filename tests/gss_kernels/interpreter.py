"""Triton's interpreter in half its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
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
