"""Scans and settings of whole runs that take about a second."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gss_train import report
from gss_train.common import open_replacing
from gss_train.main import main
from tests.gss_train.data.raw_files import make_head, write_subject

SETTINGS = [
    *("--preset", "quick", "--dataset", "brats2020", "--device", "cpu", "--spacing", "None"),
    *("--network", "uhved", "--width", "2", "--crop-size", "16", "--batch-size", "2"),
    *("--baseline-epochs", "1", "--rounds", "1", "--epochs", "1", "--steps-per-epoch", "2"),
    *("--no-tensorboard", "--figure-every", "0", "--final-evaluation", "none", "--checkpoint-minutes", "0"),
]


def write_scans(folder: Path, count: int = 5) -> Path:
    """Raw scans of so many subjects."""
    for number in range(1, count + 1):
        write_subject(folder / f"BraTS20_Training_{number:03}", make_head((16, 16, 20), seed=number), ".nii")
    return folder


@contextmanager
def one_processor() -> Iterator[None]:
    """So few subjects are not worth the start of processes that prepare them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gss_train.data.pool.default_workers", lambda: 1)
        yield


@contextmanager
def small_figures() -> Iterator[None]:
    """Runs write a few pixels where their figures are: what those look like is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("save_epoch_figure", "save_summary"):
            patch.setitem(vars(report), name, _save_few_pixels)
        yield


def _save_few_pixels(path: Path, *_: object) -> None:
    """With the operations on files of a figure."""
    with open_replacing(path) as file:
        Image.new("RGB", (8, 8)).save(file, format="png")


def run(scans: Path, output: Path, *arguments: str) -> int:
    """`python -m gss_train.main`, with the cache beside the scans."""
    cache = str(scans.with_name("cache"))
    with one_processor(), small_figures():
        return main([*SETTINGS, "--data-root", str(scans), "--cache", cache, "--output", str(output), *arguments])


def metrics(output: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The records of a run, or those of a kind."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if kind in {None, line["kind"]}]
