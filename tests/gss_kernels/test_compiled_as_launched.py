"""Every kernel compiles as a card would launch it: specialised to the integers and pointers of real calls."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: the interpreter compiles nothing", allow_module_level=True)

from triton.compiler import ASTSource

from benchmarks.stub_card import TARGETS, Specialisation
from tests.gss_kernels.launch_matrix import chosen_calls, every_call, specialisations_of

pytestmark = pytest.mark.usefixtures("triton_cache")
_ROOT = Path(__file__).parents[2]
_PARTS = 8


def assert_all_compile(specialisations: Iterable[Specialisation]) -> None:
    failed = []
    for specialisation in specialisations:
        try:
            specialisation.compile()
        except Exception as error:  # whatever a compiler raises
            failed.append(f"{specialisation.name} for {specialisation.key}: {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)


@functools.cache
def of_chosen_calls(target: str) -> list[Specialisation]:
    return specialisations_of(chosen_calls(), target)


@pytest.mark.parametrize("part", range(_PARTS))
def test_chosen_calls_compile(part: int) -> None:
    assert_all_compile(of_chosen_calls("sm_90")[part::_PARTS])


def of_multiples_of_16(own: Specialisation) -> Specialisation:
    """As if every integer argument were known to be one; sizes and strides are anyway."""
    source = own.source
    integers = [path for path, kind in paths_of(tuple(source.signature.values())) if kind == "i32"]
    attributes = source.attrs | {path: [["tt.divisibility", 16]] for path in integers}
    return dataclasses.replace(own, source=ASTSource(source.fn, source.signature, source.constants, attributes))


def paths_of(kinds: tuple[Any, ...], before: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], str]]:
    """Where each type is in a signature with tuples."""
    for i, kind in enumerate(kinds):
        if isinstance(kind, tuple):
            yield from paths_of(kind, (*before, i))
        else:
            yield (*before, i), kind


def beyond_32_bits(own: Specialisation) -> Specialisation:
    """As for volumes whose strides and numbers of voxels take 64 bits."""

    def widened(kind: Any) -> Any:
        if isinstance(kind, tuple):
            values = tuple(map(widened, kind))
            return type(kind)(*values) if hasattr(kind, "_fields") else values
        return "i64" if kind == "i32" else kind

    source = own.source
    names = ("logits", "gradients", "num_voxels")
    signature = {name: widened(kind) if name in names else kind for name, kind in source.signature.items()}
    return dataclasses.replace(own, source=ASTSource(source.fn, signature, source.constants, source.attrs))


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_finish_kernel_compiles_whatever_is_known_of_its_integers(step: int) -> None:
    """Triton 3.6 to 3.8 rewrites, and fails at, some loops over a number that it knows to be a multiple of 16."""
    finishing = [own for own in of_chosen_calls("sm_90") if own.name.endswith("finish_kernel")]
    assert_all_compile(map(of_multiples_of_16, finishing[::step]))


@pytest.mark.parametrize("target", ["sm_90", pytest.param("gfx942", marks=pytest.mark.exhaustive)])
def test_kernels_for_volumes_beyond_32_bits_compile(target: str) -> None:
    last_of_each = {own.name: own for own in of_chosen_calls(target)}
    assert len(last_of_each) == 7
    assert_all_compile(map(beyond_32_bits, last_of_each.values()))


@pytest.mark.exhaustive
@pytest.mark.parametrize("target", TARGETS)
def test_every_call_compiles(target: str) -> None:
    assert_all_compile(specialisations_of(every_call(), target))


def outcome_of_gpu_tests(*which: str) -> str:
    """What GPU tests print on a GPU that is not there; what they say of it is void, but everything has to compile."""
    command = [sys.executable, "-m", "pytest", *which, "-p", "tests.pretended_gpu", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:]
    return done.stdout


def test_gpu_tests_can_be_tried_without_one() -> None:
    printed = outcome_of_gpu_tests("tests/gpu/test_supervision.py", "-k", "labels_that_are_no_category")
    assert "AttributeError" not in printed, printed


@pytest.mark.exhaustive
def test_everything_that_the_gpu_tests_launch_compiles() -> None:
    outcome_of_gpu_tests("tests/gpu", "-n", "auto")
