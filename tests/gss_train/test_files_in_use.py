"""A training and an evaluation keep the prepared files that they read from being deleted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gss_train.common import UserError
from gss_train.evaluate import main as evaluate
from gss_train.prepare import main as prepare
from tests.gss_train.training.tiny import run, write_scans


@pytest.fixture
def cleaned() -> list[int]:
    """Statuses of `prepare --clean`."""
    return []


def test_a_training(tmp_path: Path, cleaned: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ["--clean", "--cache", str(tmp_path / "cache")]

    def clean(*_: object) -> None:
        cleaned.append(prepare(cache))
        raise UserError("that is all")

    monkeypatch.setattr("gss_train.training.run.train", clean)
    assert run(write_scans(tmp_path / "scans"), tmp_path / "run") == 2
    assert len(list(tmp_path.glob("cache/prepared/brats2020/*.npy"))) > 2
    assert [*cleaned, prepare(cache)] == [2, 0]
    assert not list(tmp_path.glob("cache/prepared/*"))


def test_an_evaluation(tmp_path: Path, cleaned: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ["--clean", "--cache", str(tmp_path)]
    raw = SimpleNamespace(prepared_folder=tmp_path / "prepared" / "brats2020")
    monkeypatch.setattr("gss_train.evaluate.plan", lambda _: SimpleNamespace(raw=raw))
    monkeypatch.setattr("gss_train.evaluate.carry_out", lambda _: cleaned.append(prepare(cache)))
    assert evaluate(["run"]) == 0
    assert [*cleaned, prepare(cache)] == [2, 0]
