"""Command line: `python -m gss_train.experiment --dataset NAME --seeds 0 1 2` compares with and without GSS."""

from __future__ import annotations

import sys
import time

from gss_train.errors import UserError

_USER_ERROR = 2
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after an error that the user can mend, said in one message on standard error; 143 if SIGTERM and 130 if
        SIGINT ended it. The same command goes on where it was stopped.
    """
    started = time.monotonic()
    try:
        # Here, so that a missing package is said as plainly as any other error.
        from gss_train.engine.interruption import Interrupted, exit_status  # noqa: PLC0415
        from gss_train.experimenting import parse_arguments, run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        return _lacking(error)
    try:
        run(parse_arguments(arguments))
    except Interrupted as interrupted:
        return _fail(str(interrupted), exit_status(interrupted.signal))
    except ModuleNotFoundError as error:
        return _lacking(error)
    except (UserError, OSError) as error:
        return _fail(str(error), _USER_ERROR)
    except KeyboardInterrupt:
        return _fail("interrupted; what is finished is kept", _INTERRUPTED)
    print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")
    return 0


def _lacking(error: ModuleNotFoundError) -> int:
    advice = 'pip install -c constraints.txt -e ".[train,demo]" in a clone of this repository'
    return _fail(f"{error}; {advice}", _USER_ERROR)


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
