"""`python -m gss_train.main`, but for the second process, which breaks in its second step."""

from __future__ import annotations

import os
import sys
from typing import Any

from torch.distributed.elastic.multiprocessing.errors import record

from gss_train.main import main
from gss_train.training import training

step = training.training_step
steps = 0


def break_down(*arguments: Any, **options: Any) -> Any:
    global steps  # noqa: PLW0603
    steps += 1
    if os.environ["RANK"] == "1" and steps == 2:
        raise RuntimeError("the second process has broken down")
    return step(*arguments, **options)


if __name__ == "__main__":
    training.training_step = break_down
    sys.exit(record(main)())
