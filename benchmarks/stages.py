"""The stages of a run of `benchmarks/gpu.sh`, what matters most first.

    bash benchmarks/gpu.sh loss [--out FOLDER] [--commit HASH] [--minutes 9] [--only STAGE ...] [--dry-run]

All of a run is in one file of records, `<card>-<what>.jsonl`, each in it the moment it exists. A process that breaks,
hangs or leaves the GPU unusable is started again without what it had begun: see `benchmarks/recording.py`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, NoReturn

from benchmarks.lines import Lines, of_kind, read
from benchmarks.stage import Stage, run_stage

_ROOT = Path(__file__).resolve().parent.parent
_LOSSES = ("benchmarks/test_loss.py", "benchmarks/test_segmentation_loss.py", "benchmarks/test_objective.py")
_PLAIN_LOSSES = "(eager or separate or launch_bound) and not torch.compile"
_NETWORKS = ("benchmarks/test_network_step.py", "benchmarks/test_subsets.py")
_PACKAGES = ("torch", "triton", "numpy", "pytest", "pytest-benchmark", "pytest-xdist")
WHATS = ("loss", "configuration", "networks", "step", "train")


@dataclass(frozen=True)
class Run:
    """What was asked for.

    Attributes:
        file: of the records.
        dry: on the CPU, with tiny sizes.
        commit: of the code, "unknown" without one.
        minutes: for all stages together.
        data: folder of prepared subjects to train with.
        processes: of the GPU tests, 0 without pytest-xdist.
    """

    file: Path
    dry: bool
    commit: str
    minutes: float
    data: Path | None
    processes: int


def plan(what: str, run: Run) -> list[Stage]:
    """The stages in order; all their seconds together are more than there are, as most end early."""
    if what == "loss":
        return [
            _module(run, "compile", 60, "benchmarks.compiling", f"--lines={run.file}"),
            _pytest(run, "headline", 90, "benchmarks/check_functions.py", "benchmarks/test_headline.py"),
            _benchmarks(run, "fused", 110, *_LOSSES, "-k", "fused"),
            _benchmarks(run, "eager", 80, *_LOSSES, "-k", _PLAIN_LOSSES),
            _tests(run, 180),
            _benchmarks(run, "sizes", 60, "benchmarks/test_loss.py", "-k", "scaling"),
            _benchmarks(run, "compiled", 180, *_LOSSES),
        ]
    if what == "train":
        file = run.file.with_name(run.file.name.replace("-train.", "-train-log."))
        data = ["--data", str(run.data)] if run.data is not None else []
        minutes = ["--minutes", f"{run.minutes - 0.5:g}"]  # what is left is for its start and its end
        options = [*data, *minutes, "--out", str(file), "--commit", run.commit]
        return [replace(_module(run, "train", 600, "benchmarks.train", *options), silence=600)]
    one = ("-k", "uhved") if run.dry else ()
    selection = {
        "configuration": ("benchmarks/test_configuration.py",),
        "networks": (*_NETWORKS, *one),
        "step": ("benchmarks/test_training_step.py", *one),
    }[what]
    return [_benchmarks(run, what, 600, *selection)]


def _module(run: Run, name: str, seconds: float, module: str, *arguments: str) -> Stage:
    dry = ("--dry-run",) if run.dry else ()
    return Stage(name, (sys.executable, "-m", module, *arguments, *dry), seconds)


def _pytest(run: Run, name: str, seconds: float, *arguments: str) -> Stage:
    size = ("--benchmark-size=small",) if run.dry else ()
    return Stage(name, (*_recorded(run), *size, *arguments), seconds)


def _benchmarks(run: Run, name: str, seconds: float, *arguments: str) -> Stage:
    options = ("--benchmark-only", "--benchmark-long", "--benchmark-columns=min,median,rounds")
    return _pytest(run, name, seconds, *options, *arguments)


def _tests(run: Run, seconds: float) -> Stage:
    parallel = ("-n", str(run.processes), "--dist=loadgroup") if run.processes else ()
    # Without a GPU all are skipped: a file of them shows that it would be on record.
    files = "tests/gpu/test_memory.py" if run.dry else "tests/gpu"
    command = (*_recorded(run), files, "-W", "default", "-p", "no:benchmark", *parallel)
    return Stage("tests", command, seconds)


def _recorded(run: Run) -> tuple[str, ...]:
    records = ("-p", "benchmarks.recording", f"--benchmark-lines={run.file}", "--benchmark-until={until}")
    return (sys.executable, "-m", "pytest", *records, "-p", "no:cacheprovider", "--tb=short", "-q")


class _Card(NamedTuple):
    """The GPU, as far as one knows without loading PyTorch, which takes its time on a fresh machine."""

    name: str
    driver: str
    compute_mode: str

    @property
    def file_name(self) -> str:
        """Its name as part of a file's."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def _find_card() -> _Card:
    """The first GPU; with an empty name if there is none."""
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_mode", "--format=csv,noheader"]
        fields = _output(query).partition("\n")[0].split(", ")
        return _Card(*fields) if len(fields) == len(_Card._fields) else _Card("", "", "")
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return _Card(_output([sys.executable, "-c", code]), "unknown", "Default")


def _output(command: list[str]) -> str:
    """What a command prints, nothing where it is not installed."""
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bash benchmarks/gpu.sh", description=__doc__)
    parser.add_argument("what", nargs="?", default="loss", choices=WHATS)
    out = os.environ.get("OUT") or _ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help="of the file (default: %(default)s)")
    parser.add_argument("--commit", metavar="HASH", help="of the code, where there is no git repository to ask")
    parser.add_argument("--minutes", type=float, default=9, help="for all stages together (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages (default: all)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="prepared subjects, for train")
    parser.add_argument("--dry-run", action="store_true", help="the same stages on the CPU, with tiny sizes")
    return parser.parse_args()


def _refuse(problem: str) -> NoReturn:
    print(f"gpu.sh: {problem}", file=sys.stderr)
    sys.exit(2)


def main() -> int:
    """Run the stages; 0 if all of them ended and nothing failed."""
    arguments = _parse()
    end = time.monotonic() + 60 * arguments.minutes
    card = _Card("dry run", "none", "Default") if arguments.dry_run else _find_card()
    if not card.name:
        _refuse("there is no GPU here; the benchmarks of a CPU are: pytest benchmarks/ --benchmark-only")
    file = arguments.out.resolve() / f"{card.file_name}-{arguments.what}.jsonl"
    if file.exists():
        _refuse(f"{file} exists; move it, or name another folder with --out")
    arguments.data = arguments.data and arguments.data.resolve()
    os.chdir(_ROOT)
    if arguments.dry_run:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    run = _run(arguments, file, card)
    stages = plan(arguments.what, run)
    names = [stage.name for stage in stages]
    if unknown := set(arguments.only or ()) - set(names):
        _refuse(f"--only: got {', '.join(sorted(unknown))}, need some of {', '.join(names)}")
    lines = Lines(file)
    lines.write(
        "start",
        what=arguments.what,
        command=f"bash benchmarks/gpu.sh {arguments.what} --minutes {arguments.minutes:g}",
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        commit=run.commit,
        card=card._asdict(),
        versions={"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
    )
    complete = [run_stage(stage, lines, end) for stage in stages if stage.name in (arguments.only or names)]
    bad = len(of_kind(read(file), "failed", "broken"))
    print(f"gpu.sh: {sum(complete)} of {len(complete)} stages complete, {bad} failures; written: {file}")
    return 0 if all(complete) and not bad else 1


def _run(arguments: argparse.Namespace, file: Path, card: _Card) -> Run:
    processes = 1 if arguments.dry_run or card.compute_mode != "Default" else os.cpu_count() or 1
    return Run(
        file,
        arguments.dry_run,
        arguments.commit or _output(["git", "rev-parse", "HEAD"]) or "unknown",
        arguments.minutes,
        arguments.data,
        processes if importlib.util.find_spec("xdist") else 0,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
