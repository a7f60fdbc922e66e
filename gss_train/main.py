"""Command line: `python -m gss_train.main --dataset brats2015` trains, evaluates and reports."""

from __future__ import annotations

import os
import sys
import time

from gss_train.common import run_command


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 2 after an error that the user can mend, said in one message on standard error; 143 if SIGTERM and 130 if
        SIGINT ended it: during the training the run is saved before, and the same command goes on with it.
    """
    started = time.monotonic()

    def train() -> None:
        from gss_train.config import parse_config  # noqa: PLC0415

        config = parse_config(arguments)
        from gss_train.report import save_epoch_figure, save_summary  # noqa: PLC0415  (heavy: not for --help)
        from gss_train.training import Drawing, run_training  # noqa: PLC0415

        run_training(config, Drawing(save_epoch_figure, save_summary))
        if os.environ.get("RANK", "0") == "0":
            print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")

    return run_command(train, extras="train,demo")


def _main_of_several() -> int:
    """As `torchrun` starts it: what goes wrong in one process is shown as the cause of the end of all."""
    from torch.distributed.elastic.multiprocessing.errors import record  # noqa: PLC0415

    return record(main)() or 0


if __name__ == "__main__":
    sys.exit(_main_of_several() if "TORCHELASTIC_ERROR_FILE" in os.environ else main())
