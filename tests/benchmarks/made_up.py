"""A run of `benchmarks/gpu.sh` that never took place: its records, with numbers that nobody can take for measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.lines import Lines

GROUP = "made-up loss"


def write_run(file: Path) -> None:
    """As the stages leave it: fused before eager, whose figures come bit by bit, and one failure."""
    lines = Lines(file)
    lines.write(
        "start",
        what="loss",
        command="bash benchmarks/gpu.sh loss",
        date="2001-02-03T04:05:06+00:00",
        commit="abc",
        card={"name": "made-up", "driver": "1.2.3", "compute_mode": "Default"},
        versions={"python": "3.0", "torch": "2.0", "triton": None},
    )
    lines.write(
        "device",
        name="Made-up Card",
        capability="9.9",
        multiprocessors=11,
        l2_cache_mb=22.0,
        memory_gb=66.0,
        runtime="4.5",
    )
    lines.write("check", id="one", name="made-up function", error=0.5, tolerance=0.25)
    lines.write("copy", id="two", gb_per_s=777.0)
    _write_result(lines, "triton", wall_ms=222.0)
    _write_result(lines, "triton", gpu_ms=111.0, percent_of_copy=33.3333333)
    lines.write("passed", id="three", seconds=1.0)
    _write_result(lines, "eager", wall_ms=999.0)
    _write_result(lines, "eager", gpu_ms=444.0)
    lines.write("failed", id="tests/gpu/test_made_up.py::test_bad", error="made up\nand long (bad.py:1)")
    lines.write("skipped", id="four", reason="no reason")
    lines.write("end", stage="fused", complete=True, status=0, ended_for=None, seconds=2.0)
    lines.write("end", stage="sizes", complete=False, status=-2, ended_for="time", seconds=3.0)


def _write_result(lines: Lines, name: str, **figures: float) -> None:
    lines.write("result", id=name, group=GROUP, name=name, rounds=5, figures=figures)
