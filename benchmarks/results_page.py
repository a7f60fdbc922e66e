"""The page of the measured results: `python -m benchmarks.results_page`.

Reads the files that `benchmarks/gpu.sh` wrote into `benchmarks/results` and writes `docs/results.md`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.lines import Record, of_kind, read
from benchmarks.results_table import Result, group_cells, with_ratios

TRAINING_LOG = "-train-log"
"""Ends the names of the files that `python -m benchmarks.train` writes."""
_GPU = (
    "Compute capability {capability}, {multiprocessors} multiprocessors, {l2_cache_mb:.0f} MB of L2 cache, "
    "{memory_gb:.0f} GB of memory, runtime {runtime}."
)
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
    """Write the page from the result files in a folder; without any, leave everything as it is and return False."""
    files = [file for file in sorted(results.glob("*.jsonl")) if not file.stem.endswith(TRAINING_LOG)]
    if not files:
        return False
    runs = [_load(file) for file in files]
    lines = [_INTRODUCTION]
    for card in sorted({_card(run) for run in runs}):
        lines += [f"## {card}", ""]
        for run in sorted((run for run in runs if _card(run) == card), key=lambda run: str(run[0]["what"])):
            lines += _run(run)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return True


def gather(records: list[Record]) -> list[Result]:
    """The results, whose figures came one after the other, with how they compare."""
    results: dict[tuple[str, str], Result] = {}
    for record in of_kind(records, "result"):
        key = record["group"], record["name"]
        results.setdefault(key, Result(*key, {})).figures.update(record["figures"])
    return with_ratios(list(results.values()))


def _load(file: Path) -> list[Record]:
    records = read(file)
    if not records or records[0]["kind"] != "start":
        raise ValueError(f"{file}: does not begin with the record 'start', need a file that benchmarks/gpu.sh wrote")
    return records


def _card(run: list[Record]) -> str:
    return str(next(iter(of_kind(run, "device")), run[0]["card"])["name"])


def _run(run: list[Record]) -> Iterator[str]:
    yield from (f"### `{run[0]['command']}`", "")
    yield from (f"- {line}" for line in _facts(run))
    yield ""
    results = gather(run)
    for group in dict.fromkeys(result.group for result in results):
        yield from (f"#### {group}", "", *_table(group_cells(results, group)), "")


def _facts(run: list[Record]) -> Iterator[str]:
    start = run[0]
    yield f"Measured on {start['date'][:10]}, commit {start['commit']}, driver {start['card']['driver']}."
    yield ", ".join(f"{name} {version or 'not installed'}" for name, version in start["versions"].items()) + "."
    for device in of_kind(run, "device")[:1]:
        if "capability" in device:
            yield _GPU.format_map(device)
    for copy in of_kind(run, "copy")[:1]:
        yield f"Device-to-device copy: {copy['gb_per_s']:.0f} GB/s, read and written bytes together."
    if checks := of_kind(run, "check"):
        yield f"{len(checks)} comparisons of the public functions with the CPU."
    yield f"{len(of_kind(run, 'passed'))} tests and benchmarks passed."
    for reason, count in Counter(_one_line(record["reason"]) for record in of_kind(run, "skipped")).items():
        yield f"{count} skipped: {reason}."
    yield from (f"Failed: `{record['id']}`: {_one_line(record['error'])}" for record in of_kind(run, "failed"))
    for end in of_kind(run, "end"):
        if not end["complete"]:
            yield f"Stage {end['stage']} is not complete: {end['ended_for'] or 'exit status ' + str(end['status'])}."


def _one_line(text: str) -> str:
    return text.partition("\n")[0][:200]


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
        print(f"nothing written: there is no result file (*.jsonl) in {arguments.results}")


if __name__ == "__main__":
    main()
