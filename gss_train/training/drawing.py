"""Who draws a run's figures: handed in, as what draws knows the training's records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Drawing:
    """Draws to PNG files.

    Attributes:
        epoch: as `gss_train.report.save_epoch_figure`.
        summary: as `gss_train.report.save_summary`.
    """

    epoch: Callable[..., None]
    summary: Callable[..., None]
