"""Exchange within a warp against what the manual says, thread by thread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.ptx.handwritten import apply, kernel, run
from tests.ptx.number_formats import Array
from tests.ptx.program import PTXError, UnknownInstructionError

LANES = np.arange(64, dtype=np.uint32)
VALUES = (LANES * 7 + 3).astype(np.uint32)


def partner_of(mode: str, lane: int, by: int, limit: int) -> tuple[int, bool]:
    """PTX's manual, line by line."""
    segment, clamp = limit >> 8 & 31, limit & 31
    last, first = lane & segment | clamp & ~segment, lane & segment
    if mode == "up":
        other, inside = lane - by, lane - by >= last
    elif mode == "down":
        other, inside = lane + by, lane + by <= last
    elif mode == "bfly":
        other, inside = lane ^ by, lane ^ by <= last
    else:
        other = first | by & ~segment
        inside = other <= last
    return (other if inside else lane), inside


@pytest.mark.parametrize("limit", [31, 0x1C1F, 0x1003])
@pytest.mark.parametrize("by", [0, 1, 5, 16])
@pytest.mark.parametrize("mode", ["bfly", "idx", "up", "down"])
def test_shuffles(mode: str, by: int, limit: int) -> None:
    if mode == "up":
        limit &= 0x1F00
    whence = [(lane // 32 * 32 + partner_of(mode, lane % 32, by, limit)[0]) for lane in LANES.tolist()]
    got = apply(f"shfl.sync.{mode}.b32", np.uint32, VALUES, by, limit, -1)
    np.testing.assert_array_equal(got, VALUES[whence])


def test_shuffle_tells_whether_it_read_another_thread() -> None:
    out = np.zeros(32, np.uint32)
    run(
        kernel(
            "shfl.sync.down.b32 %r1|%p1, %r30, 4, 31, -1;\nselp.b32 %r2, %r1, 99, %p1;\n"
            "mad.lo.s64 %rd1, %rd29, 4, %rd30;\nst.global.b32 [%rd1], %r2;"
        ),
        out,
    )
    assert out.tolist() == [*range(4, 32), 99, 99, 99, 99]


@pytest.mark.parametrize(("name", "function"), [("add", sum), ("min", min), ("max", max)])
def test_reductions(name: str, function: Callable[[list[int]], int]) -> None:
    signed = (VALUES.astype(np.int64) - 100).astype(np.int32)
    got = apply(f"redux.sync.{name}.s32", np.int32, signed, -1)
    np.testing.assert_array_equal(got, np.repeat([function(signed[:32].tolist()), function(signed[32:].tolist())], 32))


def test_only_some_threads_of_a_warp() -> None:
    body = "setp.lt.u32 %p1, %r30, 16;\n@%p1 shfl.sync.idx.b32 %r1, %r30, 0, 31, -1;"
    with pytest.raises(PTXError, match=r"shfl.sync.idx.b32 .*not all threads of the warp of thread 0"):
        run(kernel(body), np.zeros(1, np.uint32))
    with pytest.raises(PTXError, match=r"redux.sync.add.s32 .*mask of members that is not -1"):
        apply("redux.sync.add.s32", np.int32, VALUES.view(np.int32), 0xFFFF)


def moved_by(body: str, words: Array, num_registers: int) -> Array:
    """What matrices that a warp reads or writes make of words in shared memory, a row of registers for each thread."""
    out = np.zeros((32, num_registers), np.uint32)
    stores = "".join(f"st.global.b32 [%rd2 + {4 * i}], %r{10 + i};\n" for i in range(num_registers))
    run(
        kernel(
            "mad.lo.s64 %rd1, %rd29, 16, %rd30;\nld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];\n"
            "mov.b32 %r20, global_smem;\nmad.lo.s32 %r21, %r30, 16, %r20;\n"
            f"{body}\nmad.lo.s64 %rd2, %rd29, {4 * num_registers}, %rd31;\n{stores}",
            2,
        ),
        words,
        out,
        shared_bytes=512,
    )
    return out


@pytest.mark.parametrize("transposed", ["", ".trans"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_matrices_are_loaded(number: int, transposed: str) -> None:
    halves = np.arange(256, dtype=np.uint16)  # 32 rows of 8, four matrices
    registers = ", ".join(f"%r{10 + i}" for i in range(number))
    body = (
        "st.shared.v4.b32 [%r21], {%r1, %r2, %r3, %r4};\n"
        f"ldmatrix.sync.aligned.m8n8.x{number}{transposed}.shared.b16 {{{registers}}}, [%r21];"
    )
    got = moved_by(body, halves.view(np.uint32), number)
    matrices = halves.reshape(4, 8, 8)
    for lane in range(32):
        for i in range(number):
            own = matrices[i].T if transposed else matrices[i]
            low, high = own[lane // 4, 2 * (lane % 4) : 2 * (lane % 4) + 2].tolist()
            assert got[lane, i] == low | high << 16


def test_matrices_are_stored() -> None:
    words = np.arange(128, dtype=np.uint32) * 65_537
    store = "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r21], {%r1, %r2, %r3, %r4};"
    got = moved_by(f"{store}\nld.shared.v4.b32 {{%r10, %r11, %r12, %r13}}, [%r21];", words, 4)
    by_thread = words.reshape(32, 4)
    for row in range(32):
        matrix, own = divmod(row, 8)
        assert got[row].tolist() == by_thread[4 * own : 4 * own + 4, matrix].tolist()


def test_unknown_forms() -> None:
    with pytest.raises(UnknownInstructionError, match=r"shfl.sync.bfly.b64, which the executor does not know"):
        apply("shfl.sync.bfly.b64", np.uint32, VALUES, 1, 31, -1)
    with pytest.raises(UnknownInstructionError, match="got 4 registers, need 2"):
        moved_by("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r10, %r11, %r12, %r13}, [%r21];", np.zeros(128, "u4"), 1)
