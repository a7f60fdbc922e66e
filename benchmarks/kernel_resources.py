"""What the compiled kernels need, as tables in docs/kernels.md: `python -m benchmarks.kernel_resources [--check]`.

Compiled as a card would launch them. Counts of the machine code and what they predict, not measurements.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import triton

from benchmarks.machine_code import SIZES, Kernel, compiled, resources
from benchmarks.predicted_share import H200, Prediction, launch_of, predict
from benchmarks.sass import machine_code, resident_programs
from benchmarks.stub_card import TARGETS

PAGE = Path(__file__).parents[1] / "docs/kernels.md"
BEGIN, END = "<!-- resources -->", "<!-- end of resources -->"
KERNELS = (
    *(Kernel("gss_forward_kernel", M, C) for M, C in SIZES),
    *(Kernel("gss_forward_kernel", 4, C, "bf16") for C in (4, 5)),
    *(Kernel("gss_forward_kernel", 4, C, available=True) for C in (4, 5)),
    *(Kernel("gss_forward_kernel", 4, C, supervised=True) for C in (4, 5)),
    *(Kernel("gss_forward_kernel", 4, C, supervised=True, available=True) for C in (4, 5)),
    *(Kernel("gss_backward_kernel", M, C) for M, C in SIZES),
    *(Kernel("gss_backward_kernel", 4, C, "bf16") for C in (4, 5)),
    *(Kernel("gss_backward_kernel", 4, C, available=True) for C in (4, 5)),
    *(Kernel("gss_backward_kernel", 4, C, supervised=True, available=True) for C in (4, 5)),
    Kernel("gss_target_kernel", 4, 4),
    Kernel("segmentation_forward_kernel"),
    Kernel("segmentation_backward_kernel"),
    Kernel("gss_finish_kernel", 4, 4),
    Kernel("gss_finish_kernel", 4, 4, supervised=True),
)
PREDICTED = tuple(
    Kernel(name, 4, C, dtype, supervised=supervised, available=supervised)
    for supervised in (False, True)
    for C in (4, 5)
    for dtype in ("fp32", "bf16")
    for name in ("gss_forward_kernel", "gss_backward_kernel")
)
"""Forward and backward pass in turn: GSS alone, and the objective as training calls it."""
_SAMPLES, _EDGES = 2, (80, 128)
_TEXT = ("kernel", "M, C", "logits", "with")
_RESOURCES = (*(f"{target} registers" for target in TARGETS), "spilled", "instructions", "special functions")
_CODE_TEXT = """\
Static estimates for sm_90: what the machine code says, without a card. Issue slots and stall cycles of one warp (the
least time it takes if it is alone), for one turn of the loop over blocks, per voxel of a thread, and for all that is
outside it, once per program; the backward pass has no loop, and is whole in the first columns. The finish kernel is one
program, which reads sums and no voxels. Resident programs are those that fit on a multiprocessor at a time."""
_CODE = (
    "voxels per thread",
    "loop: issue slots",
    "stall cycles",
    "outside: issue slots",
    "stall cycles",
    "shuffles",
    "barriers",
    "resident programs",
)
_GHZ, _TERABYTES = f"{H200.clock / 1e9:.2f} GHz", f"{H200.copy_bytes_per_second / 1e12:.1f} TB/s"
_PREDICTION_TEXT = f"""\
**Predicted, not measured**: from these counts, for batches of two on an H200 ({H200.multiprocessors} multiprocessors,
{_GHZ}; a device-to-device copy moved {_TERABYTES} on one), by the assumptions in
`benchmarks/predicted_share.py`. Written down before a card has run the kernels, to be compared when one has.
Microseconds, and the share of the copy's bandwidth. Waits for shuffles, barriers and memory are taken for hidden, so
the forward passes of 80^3 will be slower."""


def table(kernels: Iterable[Kernel] = KERNELS) -> list[str]:
    """Registers on every target, instructions on sm_90."""
    return _markdown((*_TEXT, *_RESOURCES), len(_TEXT), ((*_names(own), *_resources(own)) for own in kernels))


def _resources(kernel: Kernel) -> Iterable[str]:
    needed = {target: resources(kernel, target) for target in TARGETS}
    yield from (str(own.registers) for own in needed.values())
    most = max(own.spilled_bytes for own in needed.values())
    yield f"{most} bytes" if most else "0"
    yield f"{needed['sm_90'].instructions:.0f}"
    yield f"{needed['sm_90'].special_functions:.0f}"


def code_table(kernels: Iterable[Kernel] = KERNELS) -> list[str]:
    """Issue slots, stalls, barriers and resident programs on sm_90."""
    return _markdown((*_TEXT, *_CODE), len(_TEXT), ((*_names(own), *_code(own)) for own in kernels))


def _code(kernel: Kernel) -> Iterable[str]:
    code, voxels = machine_code(compiled(kernel, "sm_90").asm["cubin"]), kernel.configuration.voxels_per_thread
    numbers = (
        voxels,
        code.loop.instructions / voxels,
        code.loop.stall_cycles / voxels,
        code.outside.instructions,
        code.outside.stall_cycles,
        code.outside.shuffles,
        code.outside.barriers,
        _resident(kernel),
    )
    return (f"{number:.0f}" for number in numbers)


def prediction_table(kernels: Sequence[Kernel] = PREDICTED) -> list[str]:
    """Times and shares of copy: of forward and backward passes in turn, and of both together."""
    columns = [f"{edge}^3: {what}" for edge in _EDGES for what in ("us", "% of copy", "limit")]
    rows: list[tuple[str, ...]] = []
    for forward, backward in zip(kernels[::2], kernels[1::2], strict=True):
        pairs = [(_predict(forward, edge), _predict(backward, edge)) for edge in _EDGES]
        names = _names(forward)
        rows.append((*names, *(cell for one, _ in pairs for cell in _cells(one.limit, one))))
        rows.append((*_names(backward), *(cell for _, other in pairs for cell in _cells(other.limit, other))))
        rows.append(("both", *names[1:], *(cell for pair in pairs for cell in _cells("", *pair))))
    return _markdown((*_TEXT, *columns), len(_TEXT), rows)


def _cells(limit: str, *passes: Prediction) -> tuple[str, str, str]:
    seconds = sum(own.seconds for own in passes)
    share = sum(own.share * own.seconds for own in passes) / seconds
    return f"{1e6 * seconds:.0f}", f"{100 * share:.0f}", limit


def _predict(kernel: Kernel, edge: int) -> Prediction:
    code = machine_code(compiled(kernel, "sm_90").asm["cubin"])
    return predict(code, launch_of(kernel, _resident(kernel), _SAMPLES, edge**3))


def _resident(kernel: Kernel) -> int:
    metadata = compiled(kernel, "sm_90").metadata
    return resident_programs(resources(kernel, "sm_90").registers, metadata.num_warps, metadata.shared)


def _names(kernel: Kernel) -> tuple[str, ...]:
    variants = [word for word in ("supervised", "statistics", "available") if getattr(kernel, word)]
    modalities = 1 if kernel.name.startswith("segmentation") else kernel.modalities
    name = kernel.name.removesuffix("_kernel").removeprefix("gss_").replace("_", " ")
    return name, f"{modalities}, {kernel.categories}", kernel.dtype, ", ".join(variants)


def _markdown(header: Sequence[str], left: int, rows: Iterable[Sequence[str]]) -> list[str]:
    """A table whose first columns are text."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * left + ["---:"] * (len(header) - left), *rows)]


def tables() -> str:
    """All tables in Markdown, with the version of the compiler."""
    compiler = f"Compiled with Triton {triton.__version__}."
    parts = ([compiler], table(), [_CODE_TEXT], code_table(), [_PREDICTION_TEXT], prediction_table())
    return "\n\n".join(map("\n".join, parts))


def main() -> int:
    """Write the tables, or with `--check` say whether the page has them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    options = parser.parse_args()
    written = tables()  # takes minutes: the page is read after it
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    current = f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"
    if options.check:
        if current != page:
            print(f"{PAGE.name}: the tables of resources are out of date; run python -m benchmarks.kernel_resources")
        return 0 if current == page else 1
    PAGE.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
