"""What readers of the device code rely on: few parameters, and functions that fit on a screen."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: functions are the interpreter's", allow_module_level=True)

from triton.runtime.jit import JITCallable

_FILES = (
    "gss.finish",
    "gss.kernel_vote",
    "gss.kernels",
    "segmentation.device",
    "segmentation.finish",
    "segmentation.kernels",
    "triton.arithmetic",
    "triton.sums",
    "triton.volumes",
)
_MOST_PARAMETERS = 10
_LINES_OF_A_SCREEN = 60


def functions_of(file: str) -> dict[str, Any]:
    """Its own functions for the device."""
    module = importlib.import_module(f"gss_kernels.{file}")
    functions = {name: own for name, own in vars(module).items() if isinstance(own, JITCallable)}
    return {name: own for name, own in functions.items() if own.fn.__module__ == module.__name__}


@pytest.mark.parametrize("file", _FILES)
def test_functions_are_short(file: str) -> None:
    functions = functions_of(file)
    assert functions
    for name, own in functions.items():
        assert len(inspect.signature(own.fn).parameters) <= _MOST_PARAMETERS, name
        assert len(inspect.getsource(own.fn).splitlines()) <= _LINES_OF_A_SCREEN, name
