"""One small JSON file of a run of `benchmarks/gpu.sh`, from what pytest wrote of its tests and benchmarks.

    python -m benchmarks.collect_results FOLDER --what loss --out FILE

FOLDER holds `benchmarks.json` (pytest-benchmark's), and of benchmarks and tests a JUnit report (`tests.xml`) and
pytest's exit status (`tests.status`). Reports may be missing, because a run broke off.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from benchmarks import machine


def collect(folder: Path, what: str) -> dict[str, Any]:
    """The result: card, versions, outcomes of tests and benchmarks, and the figures by group."""
    raw = _raw_benchmarks(folder / "benchmarks.json")
    info = raw.get("machine_info", {})
    return {
        "what": what,
        "command": f"bash benchmarks/gpu.sh {what}",
        "date": raw.get("datetime"),
        "commit": os.environ.get("COMMIT") or None,
        "card": _rounded(info["card"] if "card" in info else machine.card()),
        "versions": info["versions"] if "versions" in info else machine.versions(),
        "size": info.get("benchmark_size"),
        "tests": outcomes(folder, "tests"),
        "benchmarks": outcomes(folder, "benchmarks"),
        "groups": _groups(raw.get("benchmarks", [])),
    }


def outcomes(folder: Path, name: str) -> dict[str, Any] | None:
    """Exit status and counts of a run, the names of what failed, the reasons for skips; None if it was not started."""
    status = folder / f"{name}.status"
    if not status.is_file():
        return None
    counts = {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}
    failed: list[str] = []
    reasons: set[str] = set()
    for case in _cases(folder / f"{name}.xml"):
        if (skipped := case.find("skipped")) is not None:
            counts["skipped"] += 1
            reasons.add(skipped.get("message", ""))
        elif (tags := {child.tag for child in case}) & {"failure", "error"}:
            counts["failed" if "failure" in tags else "errors"] += 1
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        else:
            counts["passed"] += 1
    code = int(status.read_text(encoding="utf-8"))
    return {"exit_status": code, **counts, "failed_names": sorted(set(failed)), "skip_reasons": sorted(reasons)}


def _cases(report: Path) -> list[ET.Element]:
    """Of a JUnit report; none without one."""
    if not report.is_file() or not report.stat().st_size:
        return []
    return list(ET.parse(report).iter("testcase"))


def _raw_benchmarks(path: Path) -> dict[str, Any]:
    if not path.is_file() or not path.stat().st_size:
        return {}
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return raw


def _groups(benchmarks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`{"group", "results": [{"name", "rounds", **figures}]}` in the order of the run, without the raw times."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for benchmark in benchmarks:
        extra = benchmark["extra_info"]
        result = {"name": extra["name"], "rounds": benchmark["stats"]["rounds"], **_rounded(extra["figures"])}
        groups.setdefault(extra["group"], []).append(result)
    return [{"group": group, "results": results} for group, results in groups.items()]


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """Five digits: more than the figures repeat to."""
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in figures.items()}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collect_results", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--what", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    result = collect(arguments.folder, arguments.what)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
