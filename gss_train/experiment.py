"""Command line: `python -m gss_train.experiment --dataset NAME --seeds 0 1 2` compares with and without GSS."""

from __future__ import annotations

import sys
import time

from gss_train.common import run_command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after an error that the user can mend, said in one message on standard error; 143 if SIGTERM and 130 if
        SIGINT ended it. The same command goes on where it was stopped.
    """
    started = time.monotonic()

    def experiment() -> None:
        from gss_train.experimenting import parse_arguments, run  # noqa: PLC0415

        run(parse_arguments(arguments))
        print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")

    return run_command(experiment, extras="train,demo", interrupted="interrupted; what is finished is kept")


if __name__ == "__main__":
    sys.exit(main())
