"""The Triton kernels compiled for GPUs that this machine need not have; registers and loads on the H100 generation."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gss_kernels import CategoryGroups

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: the interpreter compiles nothing", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gss_kernels.triton import loss
from gss_kernels.triton.launch import BLOCK_VOXELS, COMPILE_OPTIONS, FINISH_CHUNK, leader_bits
from gss_kernels.triton.vote import KEEP_DRAWN, KEEP_GIVEN

KERNELS = ("forward_kernel", "backward_kernel", "target_kernel", "finish_kernel")
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SIZES = ((4, 4), (4, 5), (2, 2), (3, 4), (4, 3))
_NUMBERS = {
    **dict.fromkeys(("programs", "num_samples", "upstream_stride_b", "upstream_stride_m"), "i32"),
    "last_masked_word": "i64",
}
_SIZES_AND_STRIDES = ("stride_b", "stride_c", "gradient_stride_b", "gradient_stride_c", "num_voxels")
_POINTERS = {"available_pointer": "*u8", "keep_pointer": "*u8", "seed_pointer": "*i64"}


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton_cache")))
        yield


def compiled(
    name: str,
    target: str,
    modalities: int = 4,
    categories: int = 4,
    dtype: str = "fp32",
    integers: str = "i32",
    **constants: Any,
) -> Any:
    """A kernel as a launch on dense volumes of a multiple of 16 voxels would compile it."""
    kernel = getattr(loss, name)
    M, C = modalities, categories
    groups = CategoryGroups((*((c % M,) for c in range(C - 1)), (0, M - 1)))
    values: dict[str, Any] = {
        "M": M,
        "C": C,
        "LEADERS": leader_bits(groups, M),
        "RELEASED": False,
        "HAS_AVAILABLE": False,
        "SQUARINGS": 3,
        "MASK": KEEP_DRAWN.value,
        "KL": True,
        "BLOCK": BLOCK_VOXELS,
        "M_PADDED": triton.next_power_of_2(M),
        "C_PADDED": triton.next_power_of_2(C),
        "CLASS_WEIGHTING": True,
        "CHUNK": FINISH_CHUNK,
        "stride_v": 1,
        "gradient_stride_v": 1,
    } | constants
    constexprs = {(i,): values[key] for i, key in enumerate(kernel.arg_names) if key in values}
    signature: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for i, key in enumerate(kernel.arg_names):
        if (i,) in constexprs:
            signature[key] = "constexpr"
        elif key in ("pointers", "gradient_pointers"):
            signature[key] = (f"*{dtype}",) * M
            attributes.update({(i, m): [["tt.divisibility", 16]] for m in range(M)})
        elif key in _SIZES_AND_STRIDES:
            signature[key] = integers
            attributes[i,] = [["tt.divisibility", 16]]
        elif key.endswith("pointer"):
            signature[key] = _POINTERS.get(key, "*fp32")
            attributes[i,] = [["tt.divisibility", 16]]
        else:
            signature[key] = _NUMBERS.get(key, "fp32")
    source = ASTSource(kernel, signature, constexprs=constexprs, attrs=attributes)
    return triton.compile(source, target=TARGETS[target], options=COMPILE_OPTIONS)


def registers_and_stack(cubin: bytes, folder: Path) -> tuple[int, int]:
    """Registers per thread, and bytes of stack per thread, which are spills."""
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    usage = subprocess.run([tool, "--dump-resource-usage", file], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("target", ["sm_80", "gfx942"])
@pytest.mark.parametrize("name", KERNELS)
def test_compiles(name: str, target: str) -> None:
    code = compiled(name, target).asm
    assert code["cubin" if target == "sm_80" else "hsaco"]


@pytest.mark.parametrize(("modalities", "categories"), SIZES)
@pytest.mark.parametrize("name", KERNELS)
def test_nothing_spills(name: str, modalities: int, categories: int, tmp_path: Path) -> None:
    kernel = compiled(name, "sm_90", modalities, categories)
    registers, stack = registers_and_stack(kernel.asm["cubin"], tmp_path)
    assert stack == 0
    assert registers <= 255


@pytest.mark.parametrize("name", ["forward_kernel", "backward_kernel", "target_kernel"])
def test_logits_are_loaded_64_bits_at_a_time(name: str) -> None:
    code = compiled(name, "sm_90", 4, 5).asm["ptx"]
    assert len(re.findall(r"ld\.global\.v[24]\.b32", code)) >= 4 * 5


@pytest.mark.parametrize(
    "constants",
    [
        {"MASK": KEEP_GIVEN.value, "HAS_AVAILABLE": True, "RELEASED": True, "SQUARINGS": 0},
        # Numbers equal to 1 reach a kernel as constants.
        {"num_voxels": 1, "stride_c": 1, "stride_b": 1, "upstream_stride_m": 1, "programs": 1, "num_samples": 1},
        {"last_masked_word": 1},
        {"integers": "i64"},
    ],
    ids=["variants", "ones", "mask_ratio_of_two_words", "volumes_beyond_32_bits"],
)
@pytest.mark.parametrize("name", KERNELS)
def test_compiles_in_other_variants(name: str, constants: dict[str, Any]) -> None:
    assert compiled(name, "sm_90", 2, 3, dtype="bf16", **constants).asm["cubin"]
