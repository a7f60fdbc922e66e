"""What the compiled kernels need, as a table in docs/kernels.md: `python -m benchmarks.kernel_resources [--check]`.

Counts of the machine code, not measurements of time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import triton

from benchmarks.machine_code import SIZES, TARGETS, Kernel, Resources, resources

PAGE = Path(__file__).parents[1] / "docs/kernels.md"
BEGIN, END = "<!-- resources -->", "<!-- end of resources -->"
KERNELS = (
    *(Kernel("forward_kernel", M, C) for M, C in SIZES),
    *(Kernel("forward_kernel", 4, C, "bf16") for C in (4, 5)),
    *(Kernel("forward_kernel", 4, C, available=True) for C in (4, 5)),
    *(Kernel("forward_kernel", 4, C, supervised=True) for C in (4, 5)),
    *(Kernel("forward_kernel", 4, C, supervised=True, available=True) for C in (4, 5)),
    *(Kernel("backward_kernel", M, C) for M, C in SIZES),
    *(Kernel("backward_kernel", 4, C, "bf16") for C in (4, 5)),
    *(Kernel("backward_kernel", 4, C, available=True) for C in (4, 5)),
    *(Kernel("backward_kernel", 4, C, supervised=True, available=True) for C in (4, 5)),
    Kernel("target_kernel", 4, 4),
    Kernel("segmentation_forward_kernel"),
    Kernel("segmentation_backward_kernel"),
)
_ITEM_BYTES = {"fp32": 4, "bf16": 2}
# An H200: multiprocessors, clock, what a large device-to-device copy moves (counting bytes read and written), and what
# a multiprocessor can begin in a cycle.
_MULTIPROCESSORS, _CLOCK, _COPY = 132, 1.98e9, 4.3e12
_COPY_BYTES_PER_CYCLE = _COPY / _MULTIPROCESSORS / _CLOCK
_LANES, _SPECIAL_LANES = 128, 16
_LIMITS_HEADER = ("pass, M = 4", "memory", "instructions", "special functions", "limit", "at most, of copy")
_LIMITS_TEXT = """\
What limits each pass, from these counts: cycles of a multiprocessor per voxel. On an H200 (132 multiprocessors,
1.98 GHz; a device-to-device copy moved 4.3 TB/s on one) a multiprocessor moves 16 bytes in a cycle at the pace of the
copy, and begins 128 instructions and 16 special functions. The last column is the share of the copy's bandwidth that
the pass reaches if it keeps its scarcest resource busy all the time: a bound from counts, not a measurement."""
_REGISTERS = tuple(f"{target} registers" for target in TARGETS)
_HEADER = ("kernel", "M, C", "logits", "with", *_REGISTERS, "spilled", "instructions", "special functions")


def row(kernel: Kernel) -> tuple[str, ...]:
    """One line of the table."""
    needed = {target: resources(kernel, target) for target in TARGETS}
    hopper = needed["sm_90"]
    variants = [word for word in ("supervised", "statistics", "available") if getattr(kernel, word)]
    return (
        kernel.name.removesuffix("_kernel").replace("_", " "),
        f"{1 if kernel.name.startswith('segmentation') else kernel.modalities}, {kernel.categories}",
        kernel.dtype,
        ", ".join(variants),
        *(str(own.registers) for own in needed.values()),
        _spilled(list(needed.values())),
        f"{hopper.instructions:.0f}",
        f"{hopper.special_functions:.0f}",
    )


def limits(categories: int, dtype: str) -> list[tuple[str, ...]]:
    """For M = 4, cycles of a multiprocessor per voxel that each resource takes: of the two passes, then of both."""
    lines: list[tuple[str, ...]] = []
    sum_of_memory = sum_of_most = 0.0
    for name, passes_over_logits in (("forward", 1), ("backward", 2)):
        needed = resources(Kernel(f"{name}_kernel", 4, categories, dtype), "sm_90")
        cycles = {
            "memory": passes_over_logits * 4 * categories * _ITEM_BYTES[dtype] / _COPY_BYTES_PER_CYCLE,
            "instructions": needed.instructions / _LANES,
            "special functions": needed.special_functions / _SPECIAL_LANES,
        }
        limit = max(cycles, key=lambda kind: cycles[kind])
        sum_of_memory += cycles["memory"]
        sum_of_most += cycles[limit]
        share = f"{100 * cycles['memory'] / cycles[limit]:.0f} %"
        lines.append((f"{name}, {dtype}, C = {categories}", *(f"{own:.1f}" for own in cycles.values()), limit, share))
    lines.append((f"both, {dtype}, C = {categories}", "", "", "", "", f"{100 * sum_of_memory / sum_of_most:.0f} %"))
    return lines


def table() -> str:
    """The tables in Markdown, with the version of the compiler."""
    lines = [f"Compiled with Triton {triton.__version__}.", ""]
    lines += [_line(_HEADER), _line(["---"] * 4 + ["---:"] * (len(_HEADER) - 4))]
    lines += [_line(row(kernel)) for kernel in KERNELS]
    lines += ["", _LIMITS_TEXT, "", _line(_LIMITS_HEADER), _line(["---"] + ["---:"] * 3 + ["---", "---:"])]
    lines += [_line(cells) for categories in (4, 5) for dtype in _ITEM_BYTES for cells in limits(categories, dtype)]
    return "\n".join(lines)


def _spilled(needed: list[Resources]) -> str:
    most = max(own.spilled_bytes for own in needed)
    return f"{most} bytes" if most else "0"


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Write the table, or with `--check` say whether the page has it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    options = parser.parse_args()
    tables = table()  # takes minutes: the page is read after it
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    current = f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"
    if options.check:
        if current != page:
            print(f"{PAGE.name}: the tables of resources are out of date; run python -m benchmarks.kernel_resources")
        return 0 if current == page else 1
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
