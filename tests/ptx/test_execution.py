"""Flow of control: predicates, branches that part, barriers; and values that nobody has set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.ptx.execution import executable, execute
from tests.ptx.handwritten import kernel, run
from tests.ptx.memory import GlobalMemory
from tests.ptx.program import PTXError, UnknownInstructionError
from tests.ptx.threads import UndefinedValueError

STORE = "mad.lo.s64 %rd1, %rd29, 4, %rd30;\nst.global.b32 [%rd1], %r1;"


def result_of(body: str, num_warps: int = 1, grid: int = 1, shared_bytes: int = 0) -> list[int]:
    """What each thread leaves in %r1."""
    out = np.zeros(32 * num_warps, np.uint32)
    run(kernel(f"{body}\n{STORE}"), out, num_warps=num_warps, grid=grid, shared_bytes=shared_bytes)
    return out.tolist()


def test_predicate_leaves_registers_of_others_as_they_are() -> None:
    body = "mov.b32 %r1, 7;\nsetp.lt.u32 %p1, %r30, 3;\n@%p1 ld.global.b32 %r1, [%rd30];\n@!%p1 add.s32 %r1, %r1, 1;"
    assert result_of(body) == [0] * 3 + [8] * 29


def test_branches_part_and_join() -> None:
    """Odd threads leave a warp; all are together again for the shuffle."""
    body = (
        "and.b32 %r2, %r30, 1;\nsetp.eq.b32 %p1, %r2, 1;\n@%p1 bra odd;\nmov.b32 %r3, 100;\nbra.uni join;\n"
        "odd:\nmov.b32 %r3, 200;\njoin:\nadd.s32 %r3, %r3, %r30;\nshfl.sync.bfly.b32 %r1, %r3, 1, 31, -1;"
    )
    assert result_of(body) == [200 + (n ^ 1) if n % 2 == 0 else 100 + (n ^ 1) for n in range(32)]


def test_loops_of_different_lengths() -> None:
    body = "mov.b32 %r1, 0;\nmov.b32 %r2, 0;\nloop:\nadd.s32 %r1, %r1, %r2;\nadd.s32 %r2, %r2, 1;\n"
    body += "setp.le.u32 %p1, %r2, %r30;\n@%p1 bra loop;"
    assert result_of(body, num_warps=2) == [n * (n + 1) // 2 for n in range(64)]


def test_threads_that_end_early() -> None:
    body = "mov.b32 %r1, 5;\nsetp.lt.u32 %p1, %r30, 4;\n@%p1 ret;"
    assert result_of(body) == [0] * 4 + [5] * 28


def test_shuffle_where_branches_have_parted() -> None:
    body = "setp.eq.b32 %p1, %r30, 0;\n@%p1 bra other;\nshfl.sync.idx.b32 %r1, %r30, 0, 31, -1;\nother:"
    with pytest.raises(PTXError, match=r"shfl.sync.idx.b32.*not all threads of the warp of thread 0 of CTA 0"):
        result_of(body)


def test_special_registers() -> None:
    out = np.zeros((3, 64, 4), np.uint32)
    body = (
        "mov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %ntid.x;\nmov.u32 %r3, %nctaid.x;\nmov.u32 %r4, %nctaid.y;\n"
        "mad.lo.s32 %r5, %r1, %r2, %r30;\nmul.wide.u32 %rd1, %r5, 16;\nadd.s64 %rd1, %rd1, %rd30;\n"
        "st.global.v4.b32 [%rd1], {%r1, %r2, %r3, %r4};"
    )
    run(kernel(body), out, num_warps=2, grid=3)
    assert (out == np.array([[[cta, 64, 3, 1]] for cta in range(3)])).all()


def test_packing() -> None:
    body = (
        "mov.b64 %rd2, {%r30, 5};\nmov.b64 {%r2, %r3}, %rd2;\nmov.b32 {_, %rs1}, %r2;\nmov.b32 %r4, {%rs1, %rs1};\n"
        "add.s32 %r1, %r3, %r2;\nadd.s32 %r1, %r1, %r4;"
    )
    assert result_of(body) == [n + 5 for n in range(32)]


def test_warps_are_counted() -> None:
    body = kernel("setp.lt.u32 %p1, %r30, 32;\n@%p1 bra end;\nmov.b32 %r1, 0;\nend:")
    counts = run(body, np.zeros(1, np.uint32), num_warps=4, grid=3)
    assert (counts["setp.lt.u32"], counts["mov.b32"], counts["ret"]) == (12, 9, 12)


def test_barrier_that_some_threads_do_not_reach() -> None:
    body = "setp.lt.u32 %p1, %r30, 32;\n@%p1 ret;\nbar.sync 0;"
    with pytest.raises(PTXError, match=r"`bar.sync 0;`: thread 32 of CTA 0 waits"):
        run(kernel(body), np.zeros(1, np.uint32), num_warps=2)
    body = "setp.lt.u32 %p1, %r30, 16;\n@%p1 bra end;\nbar.sync 0;\nend:"
    with pytest.raises(PTXError, match=r"`bar.sync 0;`: not all threads of the warp"):
        run(kernel(body), np.zeros(1, np.uint32), num_warps=2)


def test_barriers_at_two_places() -> None:
    body = "setp.lt.u32 %p1, %r30, 32;\nmov.b32 %r1, 1;\n@%p1 bra one;\nbar.sync 0;\nmov.b32 %r1, 2;\nbra.uni end;\n"
    assert result_of(f"{body}one:\nbar.sync 0;\nend:", num_warps=2) == [1] * 32 + [2] * 32


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("st.global.b32 [%rd30], %r9;", "%r9"),
        ("ld.global.b32 %r1, [%rd9];", "%rd9"),
        ("add.s32 %r1, %r9, 1;\nsetp.eq.b32 %p1, %r1, 0;\n@%p1 bra end;\nend:", "%p1"),
        ("setp.eq.b32 %p1, %r30, 0;\n@%p1 mov.b32 %r1, 3;\nshfl.sync.idx.b32 %r2, %r1, 1, 31, -1;\n"
         "st.global.b32 [%rd30], %r2;", "%r2"),
        ("mov.b64 %rd2, {%r30, %r9};\nadd.f32x2 %rd3, %rd2, %rd2;\nmov.b64 {%r1, %r2}, %rd3;\n"
         "st.global.b32 [%rd30], %r2;", "%r2"),
        ("prmt.b32 %r1, %r30, %r9, 0x4210;\nst.global.b32 [%rd30], %r1;", "%r1"),
        ("and.b32 %r1, %r9, 1;\nst.global.b32 [%rd30], %r1;", "%r1"),
        ("setp.eq.b32 %p1, %r30, 0;\nselp.b32 %r1, %r9, 5, %p1;\nst.global.b32 [%rd30], %r1;", "%r1"),
    ],
    ids=["stored", "address", "predicate", "shuffled", "half", "moved", "not_masked", "selected"],
)  # fmt: skip
def test_registers_that_nobody_has_set(body: str, named: str) -> None:
    with pytest.raises(UndefinedValueError, match=f"{named} of thread .* of CTA 0 is not initialised"):
        run(kernel(body), np.zeros(1, np.uint32))


@pytest.mark.parametrize(
    "body",
    [
        "setp.eq.b32 %p1, %r30, 99;\nselp.b32 %r1, %r9, 5, %p1;",
        "setp.eq.b32 %p1, %r30, 0;\n@%p1 mov.b32 %r2, 5;\nshfl.sync.idx.b32 %r1, %r2, 0, 31, -1;",
        "mov.b32 %r3, 5;\nmov.b64 %rd2, {%r3, %r9};\nmov.b64 %rd4, %rd2;\nmov.b64 {%r1, _}, %rd4;",
        "mov.b32 %r3, 0f3F800000;\nmov.b64 %rd2, {%r3, %r9};\nadd.f32x2 %rd3, %rd2, %rd2;\nmov.b64 {%r2, _}, %rd3;\n"
        "cvt.rzi.s32.f32 %r4, %r2;\nadd.s32 %r1, %r4, 3;",
        "mov.b32 %r2, 5;\nprmt.b32 %r3, %r2, %r9, 0x4410;\nshl.b32 %r4, %r3, 16;\nshr.u32 %r1, %r4, 16;",
        "mov.b32 %r2, 5;\nprmt.b32 %r3, %r2, %r9, 0x7610;\nand.b32 %r1, %r3, 0xFFFF;",
        "mov.b32 %r2, 0f3F803F80;\ncvt.rn.bf16x2.f32 %r3, %r9, %r2;\ncvt.u16.u32 %rs1, %r3;\ncvt.f32.bf16 %r4, %rs1;\n"
        "cvt.rzi.s32.f32 %r5, %r4;\nadd.s32 %r1, %r5, 4;",
    ],
    ids=["not_selected", "not_shuffled", "other_half", "other_half_of_a_sum", "shifted_out", "masked", "converted"],
)
def test_values_that_nobody_has_set_and_nobody_uses(body: str) -> None:
    assert result_of(body) == [5] * 32


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("tanh.approx.f32 %r1, %r30;", r"tanh.approx.f32, which the executor does not know"),
        ("ld.volatile.global.b32 %r1, [%rd30];", r"ld.volatile.global.b32, which"),
        ("atom.global.add.u32 %r1, [%rd30], 1;", r"atom.global.add.u32, which"),
        ("bar.sync 1;", "need barrier 0 of all threads"),
        ("bar.sync 0, 64;", "got 2 operands, need 1"),
        ("add.s32 %r1, %rd30, 1;", r"got %rd30, declared .b64, need a register for .s32"),
        ("add.s32 %r1, %r99, 1;", r"got register %r99, which is not declared"),
        ("mov.u32 %r1, %clock;", r"got register %clock, which is not declared"),
        ("mov.b32 %r1, 0x1FFFFFFFF;", r"got 8589934591, need a number of 32 bits"),
        ("bra nowhere;", "need a label of the kernel"),
        ("@%p77 bra end;\nend:", r"got predicate %p77, need a declared one"),
        ("ld.global.v2.b32 %r1, [%rd30];", "got 1 registers, need 2"),
        ("ld.global.b32 %r1, [%r30];", "need a register of 64 bits as base"),
        ("ld.param.b64 %rd1, [p7];", "need a parameter of the kernel"),
        ("ld.param.b64 %rd1, [p0 + 4];", r"got .b64 at 4, need a part of the parameter, which is .u64"),
    ],
)
def test_unknown_instructions_are_named_without_running(body: str, message: str) -> None:
    with pytest.raises(UnknownInstructionError, match=message):
        executable(kernel(body))


def test_comparison_of_pairs() -> None:
    """The first predicate is the lower halves'."""
    one_and_two, two_and_one = "0x3F804000", "0x40003F80"
    body = (
        f"mov.b32 %r2, {one_and_two};\nmov.b32 %r3, {two_and_one};\nsetp.lt.bf16x2 %p1|%p2, %r2, %r3;\n"
        "selp.b32 %r4, 10, 20, %p1;\nselp.b32 %r5, 1, 2, %p2;\nadd.s32 %r1, %r4, %r5;"
    )
    assert result_of(body) == [21] * 32


def test_cache_hints_change_nothing() -> None:
    body = "createpolicy.fractional.L2::evict_first.b64 %rd3, 1.0;\n"
    body += "ld.global.L1::evict_first.L2::cache_hint.b32 {%r1}, [%rd30], %rd3;\nadd.s32 %r1, %r1, 5;"
    assert result_of(body) == [5] * 32


def test_wrong_launches() -> None:
    text = kernel("mov.b32 %r1, 0;")
    options: dict[str, Any] = {"grid": 1, "num_warps": 4, "shared_bytes": 0, "memory": GlobalMemory()}
    with pytest.raises(PTXError, match="arguments: got 0, need 1 for kernel by_hand"):
        execute(text, arguments=[], **options)
    with pytest.raises(PTXError, match="argument p0: got 18446744073709551616, need a number of 64 bits"):
        execute(text, arguments=[1 << 64], **options)
    with pytest.raises(PTXError, match="num_warps: got 4, need 8"):
        execute(text.replace(")\n{", ")\n.reqntid 256\n{"), arguments=[0], **options)


def test_part_of_a_parameter() -> None:
    out = np.zeros(32, np.uint32)
    memory = GlobalMemory()
    memory.add(torch.from_numpy(out), "out")
    text = kernel(f"ld.param.b32 %r1, [p1 + 4];\n{STORE}", 2)
    arguments = [out.ctypes.data, 5 << 32 | 7]
    execute(text, grid=1, num_warps=1, shared_bytes=0, arguments=arguments, memory=memory)
    assert (out == 5).all()
