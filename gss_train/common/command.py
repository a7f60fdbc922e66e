"""How every command ends: what went wrong in one line on standard error, and the exit status that scripts go by."""

from __future__ import annotations

import sys
from collections.abc import Callable

from gss_train.common.errors import UserError
from gss_train.common.interruption import Interrupted, exit_status

USER_ERROR = 2
_INTERRUPTED = 130


def run_command(work: Callable[[], bool | None], *, extras: str = "train", interrupted: str = "interrupted") -> int:
    """Do the work of a command, and say what ended it.

    Args:
        work: imports what it needs itself, so that a missing package is said as plainly as any other error. It returns
            False where the user has something to mend that is said already.
        extras: of this package that the command needs.
        interrupted: what to say after a Ctrl-C.

    Returns:
        0; 2 after an error that the user can mend; 130 after SIGINT and 143 after SIGTERM.
    """
    try:
        return USER_ERROR if work() is False else 0
    except Interrupted as signalled:
        return _fail(str(signalled), exit_status(signalled.signal))
    except ModuleNotFoundError as error:
        advice = f'pip install -c constraints.txt -e ".[{extras}]" in a clone of this repository'
        return _fail(f"{error}; {advice}", USER_ERROR)
    except (UserError, OSError) as error:
        return _fail(str(error), USER_ERROR)
    except KeyboardInterrupt:
        return _fail(interrupted, _INTERRUPTED)


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status
