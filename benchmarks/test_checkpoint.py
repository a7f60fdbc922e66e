"""Checkpoints of every network: written, read, and gone on from, next to a training step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks.crop_files import make_crops
from benchmarks.measuring import Measure, Size
from benchmarks.network_steps import benchmark_edge
from benchmarks.timing import Call
from benchmarks.whole_steps import WholeStep, WholeStepSettings
from gss_train.config import NetworkName
from gss_train.models import NETWORKS
from gss_train.training import TrainingState

if TYPE_CHECKING:
    from gss_train.runs import CheckpointStore
    from gss_train.training import CheckpointWriter, TrainingBatches

_STEPS = 150
_BATCH = 2

pytestmark = pytest.mark.long


class _Run:
    """A run after its first step, with a checkpoint of it.

    Attributes:
        name: of the benchmarks about it.
        step: the next one.
        bytes: of the checkpoint.
    """

    def __init__(self, folder: Path, network: NetworkName, size: Size, device: torch.device, edge: int | None) -> None:
        edge = benchmark_edge(network, size, device, edge)
        width = 4 if size == "small" else None
        self.name = f"checkpoint, {network}, width {width or 'published'}, steps of 1 x {edge}^3, C = 4"
        self.step = WholeStep(WholeStepSettings(network, "paper", edge, batch=1, width=width), device)
        self.step()  # makes the optimiser's moments
        self._state = TrainingState(self.step.network, _STEPS, update=self.step.update, step=1)  # type: ignore[arg-type]
        self._store = _store(folder / "checkpoints")
        self._beside = _writer(folder / "no checkpoints")
        self._batches = _batches(folder, edge)
        self.bytes = self._store.save(self._state.step, self._state.state_dict()).stat().st_size

    def write(self) -> None:
        """To the disk, as the thread beside the training does."""
        self._store.save(self._state.step, self._state.state_dict())

    def begin_to_write(self) -> None:
        """What a run waits for: a copy, which another thread then writes."""
        self._beside.save(self._state.step, self._state.state_dict())

    def read(self) -> None:
        """The newest one, onto the CPU."""
        assert self._store.newest(print) is not None

    def resume(self) -> None:
        """All that a run does between its network and its first step and one that begins anew does not; first crops."""
        content = self._store.newest(print)
        assert content is not None
        state = TrainingState(self.step.network, _STEPS)  # type: ignore[arg-type]
        state.load_state_dict(content)
        state.begin_or_continue_stage(self.step.options, self.step.settings)
        next(self._batches.steps(state.epoch, state.step_of_epoch))


def _store(folder: Path) -> CheckpointStore:
    pytest.importorskip("gss_train.runs.checkpoints", reason="needs the training dependencies", exc_type=ImportError)
    from gss_train.runs import CheckpointStore  # noqa: PLC0415  (as above)

    return CheckpointStore(folder, keep=2)


def _writer(folder: Path) -> CheckpointWriter:
    """One whose disk takes no time: a run has written the last checkpoint long before the next one."""
    from gss_train.common import CLOCK  # noqa: PLC0415  (needs the training dependencies)
    from gss_train.training import CheckpointWriter  # noqa: PLC0415  (as above)

    store = _store(folder)
    store.save = lambda *_: folder  # type: ignore[method-assign]
    return CheckpointWriter(store, minutes=15, clock=CLOCK)


def _batches(folder: Path, edge: int) -> TrainingBatches:
    from gss_train.training import BatchPlan, TrainingBatches  # noqa: PLC0415  (needs the training dependencies)

    crops = make_crops(folder, edge, (max(edge, 48),) * 3, _STEPS * _BATCH)
    return TrainingBatches(crops, BatchPlan(_BATCH, passes=1, steps=_STEPS), seed=0)


@pytest.fixture(scope="module")
def run(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    size: Size,
    device: torch.device,
    crop_edge: int | None,
) -> _Run:
    return _Run(tmp_path_factory.mktemp(request.param), request.param, size, device, crop_edge)


@pytest.mark.parametrize("name", ["training step", "begin to write", "write", "read", "resume"])
@pytest.mark.parametrize("run", NETWORKS, indirect=True)
def test_checkpoint(measure: Measure, run: _Run, name: str) -> None:
    calls: dict[str, Call] = {
        "training step": run.step,
        "begin to write": run.begin_to_write,
        "write": run.write,
        "read": run.read,
        "resume": run.resume,
    }
    figures = {} if name == "training step" else {"file_mb": run.bytes / 1e6}
    measure(calls[name], group=run.name, name=name, memory=False, figures=figures)
