"""Reading the machine code of sm_90: made-up disassemblies, and a small kernel compiled here."""

from __future__ import annotations

import collections
import importlib.util
import os
import subprocess
import sys

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: the interpreter compiles nothing", allow_module_level=True)

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.sass import Instruction, MachineCode, counts, decode, machine_code, parts, resident_programs

STALL_1 = 0x000FE200_00000000
STALL_13 = 0x000FDA00_00000000
STALL_5_AND_WAITS = 0x01EFCA00_00000000
STALL_0 = 0x000FC000_00000000


def disassembly(*lines: str | tuple[str, int]) -> str:
    """As `nvdisasm -c -hex` writes it, of labels and of instructions with the upper half of their encoding."""
    text = ['\t.section\t.text.small,"ax",@progbits', "small:", ".text.small:"]
    address = 0
    for line in lines:
        if isinstance(line, str):
            text.append(f"{line}:")
            continue
        text.append(f"        /*{address:04x}*/               {line[0]} ;     /* 0x0000000a04007986 */")
        text.append(f"                                              /* 0x{line[1]:016x} */")
        address += 16
    return "\n".join(text)


LOOPS = disassembly(
    ("MOV R0, RZ", STALL_1),
    ".L_x_0",
    ("LDG.E.64 R2, desc[UR4][R2.64]", STALL_1),
    ("@P0 BRA `(.L_x_0)", STALL_5_AND_WAITS),
    ".L_x_1",
    ("@!P1 LDG.E.U8 R4, desc[UR4][R2.64]", STALL_1),
    ("MUFU.EX2 R4, R4", STALL_1),
    ("@!P0 BRA P2, `(.L_x_1)", STALL_13),
    ".L_x_2",
    ("FADD R4, R4, R4", STALL_1),
    ("FADD R4, R4, R4", STALL_1),
    ("FADD R4, R4, R4", STALL_1),
    ("@P0 BRA `(.L_x_2)", STALL_1),
    ("CALL.REL.NOINC `($__division)", STALL_1),
    ("EXIT", STALL_1),
    "$__division",
    ("MUFU.RCP R4, R4", STALL_1),
    ("RET.REL.NODEC R2 `(small)", STALL_1),
    ".L_x_3",
    ("BRA `(.L_x_3)", STALL_0),
    ("NOP", STALL_0),
    ("NOP", STALL_0),
    ".L_x_4",
)


@pytest.mark.parametrize(
    ("upper_half", "stall_cycles"), [(STALL_1, 1), (STALL_13, 13), (STALL_5_AND_WAITS, 5), (STALL_0, 1)]
)
def test_stall_cycles_are_read_from_the_encoding(upper_half: int, stall_cycles: int) -> None:
    [instruction] = decode(disassembly(("@!UP0 STG.E.128 desc[UR4][R2.64], R4", upper_half)))
    assert instruction == Instruction("STG.E.128", stall_cycles)
    assert instruction.kind == "STG"


def test_the_main_loop_is_the_longest_that_loads() -> None:
    loop, outside, called = parts(decode(LOOPS))
    assert [own.name for own in loop] == ["LDG.E.U8", "MUFU.EX2", "BRA"]
    assert [own.name for own in called] == ["MUFU.RCP", "RET.REL.NODEC"]
    assert [own.kind for own in outside] == ["MOV", "LDG", "BRA", *["FADD"] * 3, "BRA", "CALL", "EXIT"]
    assert sum(own.stall_cycles for own in loop) == 15


def test_without_a_loop_the_whole_kernel_counts_but_for_what_fills() -> None:
    loop, outside, called = parts(
        decode(disassembly(("NOP", STALL_1), ("EXIT", STALL_1), ".L_x_0", ("BRA `(.L_x_0)", STALL_0), ("NOP", STALL_0)))
    )
    assert [own.name for own in loop] == ["NOP", "EXIT"]
    assert outside == called == []


def test_widths_are_counted_by_what_a_thread_loads_and_stores() -> None:
    names = ["LDG.E", "LDG.E.U16.CONSTANT", "LDG.E.LTC128B.64", "LDGSTS.E.BYPASS.128", "LDS.64", "STG.E.S8", "STG.E"]
    found = counts([Instruction(name, 1) for name in names])
    assert found.loads == {32: 1, 16: 1, 64: 1, 128: 1}
    assert found.stores == {8: 1, 32: 1}


@pytest.mark.parametrize(
    "broken",
    [
        "",
        disassembly(),
        disassembly(("EXIT", STALL_1)).replace(".text.small:", ""),
        disassembly(("EXIT", STALL_1)) + disassembly(("EXIT", STALL_1)).replace("small", "other"),
        disassembly(("EXIT", STALL_1), ("{ FADD }", STALL_1)),
        disassembly(("EXIT", STALL_1)).replace(f"/* 0x{STALL_1:016x} */", ""),
    ],
    ids=["empty", "no code", "no kernel", "two kernels", "no instruction", "half an encoding"],
)
def test_what_cannot_be_read_is_an_error(broken: str) -> None:
    with pytest.raises(ValueError, match="expected one kernel and an instruction at each address"):
        decode(broken)


@pytest.mark.parametrize("jump", ["BRA `(.L_x_7)", "BRX R2 -0x120", "CALL.ABS.NOINC R2"])
def test_a_jump_to_nowhere_is_an_error(jump: str) -> None:
    with pytest.raises(ValueError, match="expected a label of the code"):
        decode(disassembly((jump, STALL_1), ("EXIT", STALL_1)))


@pytest.mark.parametrize(
    ("registers", "num_warps", "shared_bytes", "programs"),
    [
        (128, 4, 0, 4),
        (73, 4, 0, 6),  # 80 are taken
        (24, 4, 0, 16),  # threads
        (16, 1, 0, 32),  # programs
        (152, 1, 0, 12),  # three warps for each scheduler
        (255, 32, 0, 0),
        (16, 1, 56 * 1024, 4),  # 57 KiB with what is reserved
        (16, 1, 56 * 1024 + 1, 3),
        (16, 1, 45_670, 4),  # 45,696 are taken
    ],
)
def test_programs_that_a_multiprocessor_holds(registers: int, num_warps: int, shared_bytes: int, programs: int) -> None:
    assert resident_programs(registers, num_warps, shared_bytes) == programs


@pytest.mark.parametrize("arguments", [(0, 4, 0), (256, 4, 0), (32, 0, 0), (32, 4, -1)])
def test_what_no_kernel_has_is_an_error(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected 1 to 255 registers"):
        resident_programs(*arguments)


@triton.jit
def sum_kernel(left_pointer, right_pointer, sum_pointer, blocks, block_size: tl.constexpr):
    offsets = tl.arange(0, block_size)
    total = tl.zeros((block_size,), tl.float32)
    for block in tl.range(0, blocks):
        left = tl.load(left_pointer + block * block_size + offsets)
        right = tl.load(right_pointer + block * block_size + offsets)
        total += tl.exp2(left) * right
        tl.debug_barrier()  # no compiler unrolls it
    tl.store(sum_pointer, tl.sum(total, axis=0))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> MachineCode:
    """Two voxels a thread of four warps."""
    types = {"left_pointer": "*fp32", "right_pointer": "*fp32", "sum_pointer": "*fp32", "blocks": "i32"}
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(3)}
    source = ASTSource(sum_kernel, types | {"block_size": "constexpr"}, constexprs={(4,): 256}, attrs=aligned)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton_cache")))
        compiled = triton.compile(
            source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "enable_fp_fusion": True}
        )
    return machine_code(compiled.asm["cubin"])


def test_counts_of_a_compiled_loop(code: MachineCode) -> None:
    assert code.loop.loads == {64: 2}
    assert code.loop.stores == {}
    assert (code.loop.special_functions, code.loop.shuffles, code.loop.barriers) == (2, 0, 1)
    assert code.loop.stall_cycles > code.loop.instructions > 8


def test_counts_outside_a_compiled_loop(code: MachineCode) -> None:
    # A sum over 32 lanes, then one over four warps.
    assert code.outside.shuffles == 5 + 2
    assert code.outside.barriers >= 1
    assert code.outside.stores == {32: 1}
    assert code.outside.loads == collections.Counter()
    assert code.called.instructions == 0


def test_registers_of_a_compiled_kernel(code: MachineCode) -> None:
    assert 8 <= code.registers <= 64
    assert code.spilled_bytes == 0


def test_a_file_that_is_no_machine_code_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="cuobjdump"):
        machine_code(b"nothing")
