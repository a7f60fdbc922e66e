"""Command line: `python -m gss_train.predict --model RUN --flair F --t1ce F --t1 F --t2 F --output FILE`."""

from __future__ import annotations

import sys

from gss_train.common import run_command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, with warnings too; 2 after an error that the user can mend, such as faults in a scan, or where subjects of a
        folder could not be predicted; 130 if interrupted.
    """

    def predict() -> bool:
        from gss_train.inference import parse_arguments, run  # noqa: PLC0415

        return run(parse_arguments(arguments))

    return run_command(predict, interrupted="interrupted; what is finished is kept")


if __name__ == "__main__":
    sys.exit(main())
