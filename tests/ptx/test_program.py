"""Reading PTX texts."""

from __future__ import annotations

import pytest

from tests.ptx.handwritten import kernel
from tests.ptx.program import (
    Address,
    Immediate,
    Parameter,
    PTXError,
    Register,
    Symbol,
    UnknownInstructionError,
    Vector,
    parse,
)

TEXT = """
.version 8.7
.target sm_90a
.extern .shared .align 16 .b8 global_smem[];
.visible .entry own(
    .param .u64 .ptr .global .align 1 own_param_0, // a comment; with "signs" {
    .param .f32 own_param_1
)
.reqntid 128
{
    .reg .pred %p<2>;
    .reg .b32 %r<3>, %s;
$L__BB0_1:
    .loc 2 17 5 // other.py:17:5
    @!%p1 st.shared.v2.b32 [global_smem + 8], {%r1, 0f3F800000};
    .pragma "nounroll";
    shfl.sync.bfly.b32 %r2|%p1, %r1, -1, 0x1F, -1; mov.b32 %s, 7U;
    .loc 1 3 1
    bra.uni $L__BB0_1;
}
.file 1 "/folder/one.py"
.file 2 "/folder/other.py"
"""


def test_every_part() -> None:
    program = parse(TEXT)
    assert (program.name, program.threads, program.shared) == ("own", 128, ("global_smem",))
    assert program.parameters == (Parameter("own_param_0", "u64"), Parameter("own_param_1", "f32"))
    assert program.registers == {"%p0": "pred", "%p1": "pred", "%r0": "b32", "%r1": "b32", "%r2": "b32", "%s": "b32"}
    assert program.labels == {"$L__BB0_1": 0}
    store, shuffle, move, branch = program.instructions
    assert (store.name, store.predicate, store.negated) == ("st.shared.v2.b32", "%p1", True)
    assert store.operands == (
        Address(Symbol("global_smem"), 8),
        Vector((Register("%r1"), Immediate(0x3F800000))),
    )
    assert str(store) == "`@!%p1 st.shared.v2.b32 [global_smem + 8], {%r1, 0f3F800000};` (other.py:17)"
    assert shuffle.operands == (
        Vector((Register("%r2"), Register("%p1"))),
        Register("%r1"),
        Immediate(-1),
        Immediate(31),
        Immediate(-1),
    )
    assert (shuffle.predicate, move.operands) == (None, (Register("%s"), Immediate(7)))
    assert (branch.operands, branch.source) == ((Symbol("$L__BB0_1"),), "one.py:3")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{ .reg .b32 t; }", "no known statement"),
        (".local .b8 stack[8];", r"got '.local .b8 stack\[8\];'"),
        ("mov.b32 %r1, a+b;", r"operand 'a\+b'"),
        ("ld.global.b32 %r1, [%rd1 * 4];", r"address '\[%rd1 \* 4\]'"),
    ],
)
def test_what_cannot_be_read_is_an_error(body: str, message: str) -> None:
    with pytest.raises(UnknownInstructionError, match=message):
        parse(kernel(body))


def test_other_kernels_are_errors() -> None:
    with pytest.raises(PTXError, match="got 2 entries"):
        parse(TEXT + TEXT)
    with pytest.raises(PTXError, match=r"parameter: got '.param .align 8 .b8 own_param_1\[16\]'"):
        parse(TEXT.replace(".f32 own_param_1", ".align 8 .b8 own_param_1[16]"))
    with pytest.raises(PTXError, match=r"directives of the entry: got '\.maxntid 128'"):
        parse(TEXT.replace(".reqntid", ".maxntid"))
