"""Command line: `python -m gss_train.predict --model RUN --flair F --t1ce F --t1 F --t2 F --output FILE`."""

from __future__ import annotations

import sys

from gss_train.errors import UserError

_USER_ERROR = 2
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, with warnings too; 2 after an error that the user can mend, such as faults in a scan, or where subjects of a
        folder could not be predicted; 130 if interrupted.
    """
    try:
        # Here, so that a missing package is said as plainly as any other error.
        from gss_train.predicting import parse_arguments, run  # noqa: PLC0415

        return 0 if run(parse_arguments(arguments)) else _USER_ERROR
    except ModuleNotFoundError as error:
        advice = 'pip install -c constraints.txt -e ".[train]" in a clone of this repository'
        return _fail(f"{error}; {advice}", _USER_ERROR)
    except (UserError, OSError) as error:
        return _fail(str(error), _USER_ERROR)
    except KeyboardInterrupt:
        return _fail("interrupted; what is finished is kept", _INTERRUPTED)


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
