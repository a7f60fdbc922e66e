"""Accesses that a kernel must not make, and those it may."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.ptx.execution import execute
from tests.ptx.handwritten import kernel, run
from tests.ptx.memory import AccessError, GlobalMemory
from tests.ptx.races import RaceError

OWN_WORD = "mad.lo.s64 %rd1, %rd29, 4, %rd30;\n"
OWN_SHARED_WORD = "mov.b32 %r20, global_smem;\nmad.lo.s32 %r21, %r30, 4, %r20;\n"
FIRST = "setp.eq.b32 %p1, %r30, 0;\n"


def words(number: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.arange(number, dtype=np.uint32)


def test_out_of_bounds_names_instruction_address_and_nearest_tensor() -> None:
    out = words(31)
    with pytest.raises(AccessError) as error:
        run(kernel(OWN_WORD + "st.global.b32 [%rd1], %r30;"), out)
    message = str(error.value)
    assert "`st.global.b32 [%rd1], %r30;`" in message
    assert f"{out.ctypes.data + 124:#x}" in message
    assert "array 0" in message


def test_before_the_first_tensor() -> None:
    with pytest.raises(AccessError, match=r"-4.*are in no tensor; the nearest is array 0"):
        run(kernel("ld.global.b32 %r1, [%rd30 + -4];"), words(8))


def test_mask_keeps_an_access_within_bounds() -> None:
    out = words(31)
    run(kernel(OWN_WORD + "setp.lt.u32 %p1, %r30, 31;\n@%p1 st.global.b32 [%rd1], 7;"), out)
    assert (out == 7).all()


def test_gap_between_elements_of_a_tensor() -> None:
    """Memory is there, but of the caller's other data."""
    whole = torch.zeros(64, dtype=torch.int32)
    memory = GlobalMemory()
    memory.add(whole[::2], "every other element")
    text = OWN_WORD + "st.global.b32 [%rd1], %r30;"
    with pytest.raises(AccessError, match=r"within the allocation of every other element"):
        execute(kernel(text), grid=1, num_warps=1, shared_bytes=0, arguments=[whole.data_ptr()], memory=memory)
    memory.add(whole[1::2], "the others")
    execute(kernel(text), grid=1, num_warps=1, shared_bytes=0, arguments=[whole.data_ptr()], memory=memory)
    assert whole[:32].tolist() == list(range(32))


def test_misaligned_vector() -> None:
    body = "ld.global.v2.b32 {%r1, %r2}, [%rd30 + 4];"
    with pytest.raises(AccessError, match=r"ld.global.v2.b32.*got misaligned address 0x\w+, need a multiple of 8"):
        run(kernel(body), words(8))


def test_vectors_and_extension() -> None:
    source = np.array([0x1111_80FF, 2, 3, 4], np.uint32)
    out = np.zeros(8, np.uint32)
    body = (
        f"{FIRST}ld.global.v4.b32 {{%r1, %r2, %r3, %r4}}, [%rd30];\n"
        "ld.global.s8 %r5, [%rd30 + 1];\nld.global.u8 %r6, [%rd30 + 1];\nld.global.b16 %r7, [%rd30];\n"
        "@%p1 st.global.v4.b32 [%rd31], {%r4, %r3, %r2, %r1};\n@%p1 st.global.v2.b32 [%rd31 + 16], {%r5, %r6};\n"
        "@%p1 st.global.b32 [%rd31 + 24], %r7;\n@%p1 st.global.b8 [%rd31 + 28], %r1;"
    )
    run(kernel(body, 2), source, out)
    assert out.tolist() == [4, 3, 2, 0x1111_80FF, 0xFFFF_FF80, 0x80, 0x80FF, 0xFF]


@pytest.mark.parametrize("offset", [-4, 4 * 32])
def test_out_of_shared_memory(offset: int) -> None:
    body = OWN_SHARED_WORD + f"st.shared.b32 [%r20 + {offset}], %r30;"
    with pytest.raises(AccessError, match=rf"4 bytes at {offset} are not in the 128 of shared memory"):
        run(kernel(body), words(1), shared_bytes=128)


def test_forgotten_base_of_shared_memory() -> None:
    with pytest.raises(AccessError, match="of shared memory"):
        run(kernel("mov.b32 %r1, 0;\nst.shared.b32 [%r1], %r30;"), words(1), shared_bytes=128)


EXCHANGE = (
    OWN_SHARED_WORD
    + "st.shared.b32 [%r21], %r30;\n{barrier}xor.b32 %r1, %r30, {other};\nmad.lo.s32 %r2, %r1, 4, %r20;\n"
    + "ld.shared.b32 %r3, [%r2];\n"
    + OWN_WORD
    + "st.global.b32 [%rd1], %r3;"
)


def test_missing_barrier() -> None:
    body = EXCHANGE.replace("{other}", "32")
    out = words(64)
    run(kernel(body.replace("{barrier}", "bar.sync 0;\n")), out, num_warps=2, shared_bytes=256)
    assert out.tolist() == [*range(32, 64), *range(32)]
    with pytest.raises(RaceError) as error:
        run(kernel(body.replace("{barrier}", "")), out, num_warps=2, shared_bytes=256)
    assert "`ld.shared.b32 %r3, [%r2];` of warp 0 of CTA 0" in str(error.value)
    assert "`st.shared.b32 [%r21], %r30;` of warp 1 of CTA 0" in str(error.value)


def test_warp_needs_no_barrier_of_its_own() -> None:
    out = words(64)
    run(kernel(EXCHANGE.replace("{other}", "1").replace("{barrier}", "")), out, num_warps=2, shared_bytes=256)
    assert out.tolist() == [number ^ 1 for number in range(64)]


def test_read_before_a_write_needs_a_barrier() -> None:
    """By two warps, of which the first is the one that writes."""
    body = OWN_SHARED_WORD + (
        "@!%p2 st.shared.b32 [%r21], %r30;\nbar.sync 0;\nld.shared.b32 %r1, [%r20];\n{barrier}"
        "@%p1 st.shared.b32 [%r20], %r30;"
    )
    body = "setp.ne.b32 %p2, %r30, 0;\n" + FIRST + body
    run(kernel(body.replace("{barrier}", "bar.sync 0;\n")), words(1), num_warps=2, shared_bytes=256)
    with pytest.raises(RaceError, match=r"st.shared.b32 \[%r20\].* of warp 0 of CTA 0 and `ld.shared.b32.* of warp 1"):
        run(kernel(body.replace("{barrier}", "")), words(1), num_warps=2, shared_bytes=256)


def test_warps_may_store_the_same_value_but_no_other() -> None:
    body = OWN_SHARED_WORD + "and.b32 %r1, %r30, 31;\nmad.lo.s32 %r2, %r1, 4, %r20;\nst.shared.b32 [%r2], {value};"
    run(kernel(body.replace("{value}", "%r1")), words(1), num_warps=2, shared_bytes=128)
    with pytest.raises(RaceError, match=r"st.shared.b32"):
        run(kernel(body.replace("{value}", "%r30")), words(1), num_warps=2, shared_bytes=128)


def test_ctas_share_no_memory() -> None:
    """Of CTAs of which each stores to the same places of its own, the last one's result is kept."""
    last = "mov.u32 %r5, %ctaid.x;\nsetp.ne.b32 %p1, %r5, 70;\n@%p1 ret;\n"
    body = EXCHANGE.replace("{other}", "32").replace("{barrier}", "bar.sync 0;\n")
    out = words(64)
    run(kernel(body.replace(OWN_WORD, last + OWN_WORD)), out, num_warps=2, shared_bytes=256, grid=71)
    assert out.tolist() == [*range(32, 64), *range(32)]


@pytest.mark.parametrize("grid", [2, 200])
def test_ctas_that_store_to_the_same_place(grid: int) -> None:
    """Also the same value, and also CTAs that do not run together here."""
    with pytest.raises(RaceError, match="of CTA"):
        run(kernel(FIRST + "@%p1 st.global.b32 [%rd30], 5;"), words(1), grid=grid)


def test_cta_that_reads_what_another_has_stored() -> None:
    body = (
        "mov.u32 %r1, %ctaid.x;\nor.b32 %r2, %r1, %r30;\nsetp.eq.b32 %p1, %r2, 0;\n"
        "@%p1 st.global.b32 [%rd30], 5;\nsetp.ne.b32 %p2, %r1, 0;\n@%p2 ld.global.b32 %r3, [%rd30];"
    )
    with pytest.raises(RaceError, match=r"ld.global.b32.* of warp 0 of CTA 1 and `@%p1 st.global.b32"):
        run(kernel(body), words(1), grid=2)


def test_barrier_orders_global_memory_within_a_cta() -> None:
    body = FIRST + "@%p1 st.global.b32 [%rd30], 5;\n{barrier}ld.global.b32 %r1, [%rd30];"
    run(kernel(body.replace("{barrier}", "bar.sync 0;\n")), words(1), num_warps=2)
    with pytest.raises(RaceError, match=r"ld.global.b32"):
        run(kernel(body.replace("{barrier}", "")), words(1), num_warps=2)
