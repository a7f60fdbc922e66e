"""Command line: `python -m gss_train.evaluate RUN` scores a trained network from all subsets of the modalities."""

from __future__ import annotations

import sys

from gss_train.errors import UserError

_USER_ERROR = 2
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after an error that the user can mend, said in one message on standard error; 130 if interrupted.
    """
    try:
        # Here, so that a missing package is said as plainly as any other error.
        from gss_train.evaluating import parse_arguments, run  # noqa: PLC0415

        run(parse_arguments(arguments))
    except ModuleNotFoundError as error:
        advice = 'pip install -c constraints.txt -e ".[train,demo]" in a clone of this repository'
        return _fail(f"{error}; {advice}", _USER_ERROR)
    except (UserError, OSError) as error:
        return _fail(str(error), _USER_ERROR)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing is written", _INTERRUPTED)
    return 0


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
