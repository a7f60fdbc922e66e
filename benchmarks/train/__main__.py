"""RFNet trained with and without GSS for minutes, on prepared subjects, with results on held-out ones.

    python -m benchmarks.train --data FOLDER --minutes 5 --out results.jsonl [--seeds 0] [--commit HASH] [--dry-run]

FOLDER holds prepared subjects, as `python -m gss_train.prepare` or `python -m benchmarks.train.packed unpack` leaves
them. It needs PyTorch, Triton and NumPy, and takes the first GPU if there is one. For each seed it trains the arms of
`gss_train.experiment`:

- `baseline`: the published objective, from random weights;
- `gss`: from the baseline's weights, with GSS and a fresh optimiser;
- `longer`: from the baseline's weights too, for as many steps as `gss` had, without GSS: what more steps alone bring.
  The comparison that counts is `gss` with `longer`.

Every arm of every seed has an equal part of the minutes, in which it starts, compiles, trains and is scored; `longer`
mostly ends sooner, as its steps are shorter. Learning rates decay over an arm, and the fused prediction counts from the
first step. The minutes begin with `main`, after the imports; an arm ends early rather than late.

Each result is a record of `benchmarks/lines.py` in `--out`, which is added to: a `header`, a `plan`, for each arm
`progress` every few seconds and a `result`, or an `error`, and an `end`. Dice are means over held-out subjects, two at
least: as many as fit into half of an arm's time, by the time that one takes; the result says how many, and has no Dice
where even two do not fit. No record names a subject. An arm is a process of its own: one that fails, or loses the GPU,
leaves the others alone; `gss` and `longer` need what their baseline learnt. The exit status is then 1.

`--dry-run` shows on the CPU within seconds that everything runs, on noise: its scores mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.lines import Lines
from benchmarks.train.arm import ArmSettings
from benchmarks.train.comparison import Comparison
from benchmarks.train.made_up import make_up_subjects
from benchmarks.train.subjects import read_subjects
from gss_train.common import UserError

_DRY_RUN = ArmSettings(width=4, crop=16, batch_size=1, warm_up_steps=1, line_seconds=0.0, steps=3)
_DRY_RUN_SUBJECTS, _DRY_RUN_SHAPE = 6, (16, 16, 24)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    defaults = ArmSettings()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of prepared subjects")
    parser.add_argument("--minutes", type=float, default=5.0, help="for all arms together")
    parser.add_argument("--out", type=Path, required=True, help="file that lines are added to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="each trains all arms")
    parser.add_argument("--commit", default=os.environ.get("COMMIT"), help="of this code, for the header")
    parser.add_argument("--dry-run", action="store_true", help="on noise, in seconds")
    parser.add_argument("--width", type=int, help="channels of one modality at the finest level; as published")
    parser.add_argument("--crop", type=int, default=defaults.crop, help="voxels of a crop along each axis")
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size, help="crops in a step")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate, help="at the start of an arm")
    options = parser.parse_args(arguments)
    if options.data is None and not options.dry_run:
        parser.error("--data: is missing, need the folder of prepared subjects; --dry-run goes without")
    if options.minutes <= 0:
        parser.error(f"--minutes: got {options.minutes}, need more than 0")
    if len(set(options.seeds)) < len(options.seeds) or min(options.seeds) < 0:
        parser.error(f"--seeds: got {options.seeds}, need numbers of 0 or more, each once")
    return options


def compare(options: argparse.Namespace, folder: Path, started: float) -> int:
    """Train on the subjects of a folder, and say how many arms failed."""
    settings = _DRY_RUN
    if not options.dry_run:
        settings = ArmSettings(options.width, options.crop, options.batch_size, options.learning_rate)
    subjects = read_subjects(folder)
    lines = Lines(options.out)
    comparison = Comparison(
        settings,
        subjects,
        tuple(options.seeds),
        "cpu" if options.dry_run else None,
        started + 60 * options.minutes,
        {"commit": options.commit, "dry_run": options.dry_run, "minutes": options.minutes},
        lines,
    )
    failed = comparison.run()
    lines.write("end", seconds=time.monotonic() - started, failed=failed)
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 if an arm failed; 2 if the subjects cannot be used.
    """
    started = time.monotonic()
    # Ask the driver which GPUs there are: a process that asks CUDA itself cannot be forked.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    options = parse_arguments(arguments)
    try:
        if not options.dry_run:
            return int(compare(options, options.data, started) > 0)
        with tempfile.TemporaryDirectory() as folder:
            make_up_subjects(Path(folder), _DRY_RUN_SUBJECTS, _DRY_RUN_SHAPE)
            return int(compare(options, Path(folder), started) > 0)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
