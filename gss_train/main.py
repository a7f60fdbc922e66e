"""Command line: `python -m gss_train.main --dataset brats2015` trains, evaluates and reports."""

from __future__ import annotations

import os
import sys
import time

from gss_train.errors import UserError

_USER_ERROR = 2
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after an error that the user can mend, said in one message on standard error; 143 if SIGTERM and 130 if
        SIGINT ended it: during the training the run is saved before, and the same command goes on with it.
    """
    started = time.monotonic()
    try:
        # Here, so that a missing package is said as plainly as any other error.
        from gss_train.config.command_line import parse_config  # noqa: PLC0415
        from gss_train.engine.interruption import Interrupted, exit_status  # noqa: PLC0415
        from gss_train.pipeline import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        return _lacking(error)
    try:
        run(parse_config(arguments))
    except Interrupted as interrupted:
        return _fail(str(interrupted), exit_status(interrupted.signal))
    except ModuleNotFoundError as error:
        return _lacking(error)
    except (UserError, OSError) as error:
        return _fail(str(error), _USER_ERROR)
    except KeyboardInterrupt:
        return _fail("interrupted", _INTERRUPTED)
    if _is_first_process():
        print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")
    return 0


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _lacking(error: ModuleNotFoundError) -> int:
    advice = 'pip install -c constraints.txt -e ".[train,demo]" in a clone of this repository'
    return _fail(f"{error}; {advice}", _USER_ERROR)


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def _main_of_several() -> int:
    """As `torchrun` starts it: what goes wrong in one process is shown as the cause of the end of all."""
    from torch.distributed.elastic.multiprocessing.errors import record  # noqa: PLC0415

    return record(main)() or 0


if __name__ == "__main__":
    sys.exit(_main_of_several() if "TORCHELASTIC_ERROR_FILE" in os.environ else main())
