"""The page of the measured results: `python -m benchmarks.results_page`.

Reads the files that `benchmarks/gpu.sh` wrote into `benchmarks/results` and writes `docs/results.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.results_table import Result, group_cells

_ROOT = Path(__file__).resolve().parent.parent
_INTRODUCTION = """\
# Measured results

Written by `python -m benchmarks.results_page` from the files in `benchmarks/results`; do not edit. `gpu ms`, `forward
ms` and `backward ms` are the GPU's own time per call, the median over batches of calls that it was given at once; `wall
ms` is the fastest single call, waiting for the GPU included. `GB/s` divides the bytes that have to move (the logits
read in each pass, the gradient written, the labels) by the time, and `% of copy` relates that to the device-to-device
copy timed in the same run. `X / this` is how many times faster a row is than X. `peak extra MB` (1e6 bytes) is what one
call holds at most beyond its inputs, `beyond gradient MB` the same less the gradient. See
[benchmarks](../benchmarks/README.md).
"""


def write_page(results: Path, page: Path) -> bool:
    """Write the page from the JSON files in a folder; without any, leave everything as it is and return False."""
    files = sorted(results.glob("*.json"))
    if not files:
        return False
    runs = [_load(file) for file in files]
    lines = [_INTRODUCTION]
    for card in sorted({run["card"]["name"] for run in runs}):
        lines += [f"## {card}", ""]
        for run in sorted((run for run in runs if run["card"]["name"] == card), key=lambda run: str(run["what"])):
            lines += _run(run)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return True


def _load(file: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    missing = {"what", "command", "card", "versions", "tests", "benchmarks", "groups"} - run.keys()
    if missing:
        raise ValueError(f"{file}: lacks {', '.join(sorted(missing))}, need a file that benchmarks/gpu.sh wrote")
    return run


def _run(run: dict[str, Any]) -> Iterator[str]:
    yield from (f"### `{run['command']}`", "")
    yield from (f"- {line}" for line in _facts(run))
    yield ""
    for group in run["groups"]:
        name = group["group"]
        results = [Result(name, result["name"], _figures(result)) for result in group["results"]]
        yield from (f"#### {name}", "", *_table(group_cells(results, name)), "")


def _facts(run: dict[str, Any]) -> Iterator[str]:
    card, versions = run["card"], run["versions"]
    yield f"Measured on {str(run.get('date'))[:10]}, commit {run.get('commit') or 'unknown'}."
    yield f"Driver {card['driver']}, runtime {card['runtime']}, {card['memory_gb']:.0f} GB of memory."
    yield ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items()) + "."
    if "copy_gb_per_s" in card:
        yield f"Device-to-device copy: {card['copy_gb_per_s']:.0f} GB/s, read and written bytes together."
    for name in ("tests", "benchmarks"):
        if run[name] is not None:
            yield f"{name.capitalize()}: {_outcome(run[name])}."


def _outcome(outcome: dict[str, Any]) -> str:
    counts = ", ".join(f"{outcome[name]} {name}" for name in ("passed", "failed", "errors", "skipped") if outcome[name])
    failed = ", ".join(f"`{name}`" for name in outcome["failed_names"])
    ended = "" if outcome["exit_status"] in {0, 1} else f"; broken off with exit status {outcome['exit_status']}"
    return (counts or "none ended") + (f"; not passed: {failed}" if failed else "") + ended


def _figures(result: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in result.items() if name not in {"name", "rounds"}}


def _table(cells: list[list[str]]) -> Iterator[str]:
    titles, *rows = cells
    yield f"| {' | '.join(titles)} |"
    yield f"| --- |{' ---: |' * (len(titles) - 1)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Write the page, or say that there is nothing to write it from."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_page", description=__doc__)
    parser.add_argument("--results", type=Path, default=_ROOT / "benchmarks" / "results", help="folder of the files")
    parser.add_argument("--page", type=Path, default=_ROOT / "docs" / "results.md", help="the page to write")
    arguments = parser.parse_args()
    if write_page(arguments.results, arguments.page):
        print(f"written: {arguments.page}")
    else:
        print(f"nothing written: there is no result file (*.json) in {arguments.results}")


if __name__ == "__main__":
    main()
