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
    *(Kernel("backward_kernel", M, C) for M, C in SIZES),
    *(Kernel("backward_kernel", 4, C, "bf16") for C in (4, 5)),
    *(Kernel("backward_kernel", 4, C, available=True) for C in (4, 5)),
    *(Kernel("backward_kernel", 4, C, supervised=True) for C in (4, 5)),
    Kernel("target_kernel", 4, 4),
    Kernel("segmentation_forward_kernel"),
    Kernel("segmentation_backward_kernel"),
)
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


def table() -> str:
    """The table in Markdown, with the version of the compiler."""
    lines = [f"Compiled with Triton {triton.__version__}.", ""]
    lines += [_line(_HEADER), _line(["---"] * 4 + ["---:"] * (len(_HEADER) - 4))]
    lines += [_line(row(kernel)) for kernel in KERNELS]
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
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    current = f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"
    if options.check:
        return 0 if current == page else 1
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
