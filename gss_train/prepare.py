"""Command line: `python -m gss_train.prepare --dataset brats2020 --data-root DIR` verifies and prepares scans."""

from __future__ import annotations

import sys

from gss_train.common import run_command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0, with warnings too; 2 after an error that the user can mend, such as faults in the scans; 130 if interrupted.
    """

    def prepare() -> bool:
        from gss_train.subjects import parse_arguments, run  # noqa: PLC0415

        return run(parse_arguments(arguments))

    return run_command(prepare, interrupted="interrupted; what is finished is kept")


if __name__ == "__main__":
    sys.exit(main())
