"""Command line: `python -m gss_train.report RUN [RUN ...]` writes the page that compares runs."""

from __future__ import annotations

import sys

from gss_train.common import run_command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after an error that the user can mend, said in one message on standard error; 130 if interrupted.
    """

    def report() -> None:
        from gss_train.report.command_line import parse_arguments, run  # noqa: PLC0415

        run(parse_arguments(arguments))

    return run_command(report)


if __name__ == "__main__":
    sys.exit(main())
