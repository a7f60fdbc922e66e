"""A run of `benchmarks/gpu.sh` that never took place: its files, with numbers that nobody can take for measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIGURES = {"wall_ms": 222.0, "gpu_ms": 111.0, "percent_of_copy": 33.3333333, "times_faster_than_eager": 4.0}


def raw_benchmarks() -> dict[str, Any]:
    """In the format of pytest-benchmark, as far as it matters."""
    info = {
        "card": {
            "name": "Made-up Card",
            "driver": "1.2.3",
            "runtime": "4.5",
            "memory_gb": 66.0,
            "copy_gb_per_s": 777.0,
        },
        "versions": {"python": "3.0", "torch": "2.0", "triton": None, "numpy": "1.0"},
        "benchmark_size": "full",
    }
    extra = {"group": "made-up loss", "name": "triton", "figures": FIGURES}
    benchmark = {"extra_info": extra, "stats": {"rounds": 5, "data": [0.1] * 5}}
    return {"machine_info": info, "datetime": "2001-02-03T04:05:06+00:00", "benchmarks": [benchmark]}


JUNIT = """\
<?xml version="1.0"?>
<testsuites><testsuite name="pytest">
<testcase classname="tests.gpu.test_made_up" name="test_good"/>
<testcase classname="tests.gpu.test_made_up" name="test_bad"><failure message="made up"/></testcase>
<testcase classname="tests.gpu.test_made_up" name="test_left_out"><skipped message="no reason"/></testcase>
</testsuite></testsuites>
"""


def write_run(folder: Path, tests_status: int = 1) -> None:
    """The files that pytest and `gpu.sh` leave."""
    (folder / "benchmarks.json").write_text(json.dumps(raw_benchmarks()), encoding="utf-8")
    for name, status in (("tests", tests_status), ("benchmarks", 0)):
        (folder / f"{name}.xml").write_text(JUNIT, encoding="utf-8")
        (folder / f"{name}.status").write_text(f"{status}\n", encoding="utf-8")
