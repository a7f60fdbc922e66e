"""Command line: `python -m gss_train.main --dataset brats2015` trains, evaluates and reports."""

from __future__ import annotations

import sys
import time

from gss_train.config import parse_config
from gss_train.data import LayoutError, PreparationError, PreparedError, VolumeError
from gss_train.engine.checkpoint import CheckpointError
from gss_train.engine.training import TrainingError
from gss_train.pipeline import run

_SAID_IN_ONE_MESSAGE = (
    ValueError,
    OSError,
    ModuleNotFoundError,
    LayoutError,
    VolumeError,
    PreparationError,
    PreparedError,
    CheckpointError,
    TrainingError,
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, or 2 after an error that was said in one message on standard error.
    """
    started = time.monotonic()
    try:
        run(parse_config(arguments))
    except _SAID_IN_ONE_MESSAGE as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
