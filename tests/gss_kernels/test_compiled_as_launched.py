"""Every kernel compiles as a card would launch it: specialised to the integers and pointers of real calls."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: the interpreter compiles nothing", allow_module_level=True)

from benchmarks.stub_card import TARGETS, Specialisation
from tests.gss_kernels.launch_matrix import chosen_calls, every_call, specialisations_of

pytestmark = pytest.mark.usefixtures("triton_cache")
_PARTS = 8


def assert_all_compile(specialisations: Iterable[Specialisation]) -> None:
    failed = []
    for specialisation in specialisations:
        try:
            specialisation.compile()
        except Exception as error:  # whatever a compiler raises
            failed.append(f"{specialisation.name} for {specialisation.key}: {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("part", range(_PARTS))
def test_chosen_calls_compile(part: int) -> None:
    assert_all_compile(specialisations_of(chosen_calls(), "sm_90")[part::_PARTS])


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("target", TARGETS)
def test_every_call_compiles(target: str, part: int) -> None:
    assert_all_compile(specialisations_of(every_call(), target)[part::_PARTS])
