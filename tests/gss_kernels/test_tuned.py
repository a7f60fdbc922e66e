"""What a launch takes: the table's configuration or, where asked for, the fastest; with a clock that is made up."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("TRITON_INTERPRET=1: the interpreter has nothing to tune", allow_module_level=True)

import triton
from triton import knobs
from triton.runtime import driver
from triton.runtime.errors import OutOfResources, PTXASError

from gss_kernels import (
    BRATS_2018,
    backends,
    fused_gss_loss,
    fused_gss_objective,
    fused_segmentation_loss,
    gss_soft_targets,
)
from gss_kernels.gss import launch as gss_launch
from gss_kernels.segmentation import launch as segmentation_launch
from gss_kernels.triton import tuned
from gss_kernels.triton.configuration import TABLE, Configuration, KernelName
from gss_kernels.triton.tuned import Launch, configuration_for, trying

CPU = torch.device("cpu")
LAUNCH = Launch("forward", 4, 4, False, torch.float32, CPU)
FOUND = Configuration(voxels_per_thread=4, num_warps=8, programs_per_multiprocessor=2)


class Clock:
    """Says how long a launch takes by its configuration, the largest blocks least; notes what was timed."""

    def __init__(self) -> None:
        self.milliseconds: Callable[[Configuration], float] = lambda own: 1 / own.block(32)
        self.timed: list[Configuration] = []

    def __call__(self, run: Callable[[], object], quantiles: tuple[float, ...]) -> list[float]:
        run()
        *_, now_tried = tuned._chosen.values()
        self.timed.append(now_tried)
        return [self.milliseconds(now_tried)] * len(quantiles)


def taken(
    launch: Launch = LAUNCH, results: Callable[[], Tensor] = lambda: torch.ones(3), source: str = "a source"
) -> Configuration:
    return configuration_for(launch, SimpleNamespace(cache_key=source), lambda: (results(),))


def in_a_new_process() -> None:
    tuned._chosen.clear()


@pytest.fixture(autouse=True)
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That of a card, with an empty cache of its own; a card for the CPU."""
    clock = Clock()
    monkeypatch.setenv("GSS_KERNELS_AUTOTUNE", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuned, "_chosen", {})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    monkeypatch.setattr(driver, "_active", SimpleNamespace(get_benchmarker=lambda: clock))
    return clock


@pytest.mark.parametrize("value", [None, "", "0"])
def test_nothing_is_timed_unless_asked_for(clock: Clock, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("GSS_KERNELS_AUTOTUNE")
    else:
        monkeypatch.setenv("GSS_KERNELS_AUTOTUNE", value)
    assert taken() == TABLE.forward
    assert not clock.timed


def test_nothing_is_timed_in_the_interpreter(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knobs.runtime, "interpret", True)
    assert taken() == TABLE.forward
    assert not clock.timed


def test_the_fastest_is_taken_and_kept_for_later_processes(clock: Clock, tmp_path: Path) -> None:
    assert taken() == FOUND
    assert len(clock.timed) == len(set(clock.timed)) == 3 * 3 * 7
    timed, clock.timed = clock.timed, []
    in_a_new_process()
    assert taken() == FOUND
    assert not clock.timed
    (kept,) = tmp_path.glob("*/configurations.json")
    times = json.loads(kept.read_text())["milliseconds"]
    assert [Configuration(**own) for own, _ in times] == timed


def test_a_process_keeps_to_what_it_has_launched(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GSS_KERNELS_AUTOTUNE")
    taken()
    monkeypatch.setenv("GSS_KERNELS_AUTOTUNE", "1")
    assert taken() == TABLE.forward


def test_backward_passes_have_no_number_of_programs_to_choose(clock: Clock) -> None:
    taken(LAUNCH._replace(kernel="backward"))
    assert {own.programs_per_multiprocessor for own in clock.timed} == {TABLE.backward.programs_per_multiprocessor}
    assert len(set(clock.timed)) == 3 * 3


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "segmentation_forward"},
        {"modalities": 3},
        {"categories": 5},
        {"segmented": True},
        {"dtype": torch.bfloat16},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_launches_are_timed_for_themselves(clock: Clock, change: dict[str, Any]) -> None:
    taken()
    clock.timed.clear()
    assert taken(LAUNCH._replace(**change)) == FOUND
    assert clock.timed


@pytest.mark.parametrize(
    ("holder", "name", "value"),
    [
        (torch.cuda, "get_device_name", lambda device: "Another card"),
        (triton, "__version__", "3.5.0"),
    ],
    ids=["card", "version"],
)
def test_other_cards_and_compilers_are_timed_anew(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, holder: object, name: str, value: object
) -> None:
    taken()
    in_a_new_process()
    clock.timed.clear()
    monkeypatch.setattr(holder, name, value)
    taken()
    assert clock.timed


def test_other_sources_are_timed_anew(clock: Clock) -> None:
    taken()
    in_a_new_process()
    clock.timed.clear()
    taken(source="another source")
    assert clock.timed


def test_the_table_stays_where_the_gain_is_noise(clock: Clock) -> None:
    clock.milliseconds = lambda own: 0.995 if own == FOUND else 1.0
    assert taken() == TABLE.forward


@pytest.mark.parametrize("wrong", [1.1, float("nan"), float("inf")])
def test_wrong_results_are_not_taken_though_fast(clock: Clock, wrong: float) -> None:
    def results() -> Tensor:
        return torch.tensor([5.0, wrong if taken() == FOUND else 1.0])

    clock.milliseconds = lambda own: 1.0 if own == FOUND else 2.0
    assert taken(results=results) == TABLE.forward
    assert len(clock.timed) == 3 * 3 * 7 - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_no_difference(dtype: torch.dtype) -> None:
    values = torch.randn(300_000, generator=torch.Generator().manual_seed(0)).to(dtype)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    flipped = values.clone()
    flipped[7] = 3
    for got, want in (
        (values * (1 + 2 * torch.finfo(dtype).eps), values),
        (flipped, values),
        (torch.full((3,), 4 * smallest).to(dtype), torch.full((3,), 3 * smallest).to(dtype)),
        (torch.tensor([torch.nan, 1]), torch.tensor([torch.nan, 1])),
    ):
        assert tuned._agree(got, want)
    flipped[:7] = 3
    assert not tuned._agree(flipped, values)


@pytest.mark.parametrize("error", [OutOfResources(99, 9, "registers"), PTXASError("too much")], ids=str)
def test_what_asks_too_much_of_the_card_is_not_taken(clock: Clock, error: Exception) -> None:
    def results() -> Tensor:
        if taken().num_warps == 8:
            raise error
        return torch.ones(1)

    clock.milliseconds = lambda own: float(-own.num_warps)
    assert taken(results=results).num_warps == 4


def test_errors_of_the_tables_configuration_are_not_hidden() -> None:
    def results() -> Tensor:
        raise OutOfResources(99, 9, "registers")

    with pytest.raises(OutOfResources):
        taken(results=results)
    assert not tuned._chosen


def test_trying_leaves_no_trace() -> None:
    other = LAUNCH._replace(modalities=3)
    tuned._chosen[LAUNCH] = TABLE.forward
    with trying({LAUNCH: FOUND, other: FOUND}):
        assert taken() == taken(other) == FOUND
    assert tuned._chosen == {LAUNCH: TABLE.forward}


class Recorder:
    """Stands for a kernel: notes what it would be launched with."""

    cache_key = "a stand-in"

    def __init__(self, name: str) -> None:
        self.sums = name.endswith("forward")
        self.options: dict[str, Any] = {}

    def __getitem__(self, grid: object) -> Callable[..., None]:
        def launch(*arguments: object, **options: Any) -> None:
            self.options = options

        return launch

    def check(self, configuration: Configuration) -> None:
        assert self.options["num_warps"] == configuration.num_warps
        form = self.options["form"]
        assert form.block == configuration.block(threads_per_warp=32)
        assert not self.sums or form.voxels == configuration.voxels_per_thread


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Recorder]]:
    """By kernel, in the place of all kernels; what they leave uninitialised is the same each time."""
    recorders = {name: Recorder(name) for name in (*get_args(KernelName), "target", "finish")}
    for module in (gss_launch, segmentation_launch):
        forward, backward = (recorders[name] for name in module.KERNELS.names)
        kernels = module.KERNELS._replace(forward=forward, backward=backward, finish=recorders["finish"])
        monkeypatch.setattr(module, "KERNELS", kernels)
    monkeypatch.setattr(gss_launch, "gss_target_kernel", recorders["target"])
    monkeypatch.setattr(backends, "_TRITON_INTERPRETED", True)
    torch.use_deterministic_algorithms(True)
    yield recorders
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_pass_is_tuned_at_its_first_launch(
    recorders: dict[str, Recorder], clock: Clock, dtype: torch.dtype
) -> None:
    logits = torch.zeros(1, 4, 4, 5, dtype=dtype, requires_grad=True)
    labels = torch.zeros(1, 5, dtype=torch.uint8)

    def step(name: str) -> None:
        if name == "gss":
            value = fused_gss_loss(logits, BRATS_2018, backend="triton")
        elif name == "objective":
            value = fused_gss_objective(logits, labels, BRATS_2018, backend="triton")
        else:
            value = torch.stack(fused_segmentation_loss(logits[:, 0], labels, backend="triton")).sum()
        value.backward()

    for name, prefix, modalities, with_labels in (
        ("gss", "", 4, False),
        ("objective", "", 4, True),
        ("segmentation", "segmentation_", 1, True),
    ):
        clock.timed, before = [], set(tuned._chosen)
        step(name)
        kernels = ("segmentation_forward", "segmentation_backward") if prefix else ("forward", "backward")
        assert set(tuned._chosen) - before == {Launch(own, modalities, 4, with_labels, dtype, CPU) for own in kernels}
        assert len(clock.timed) == 3 * 3 * 7 + 3 * 3
        for kernel in kernels:
            recorders[kernel].check(FOUND)
        step(name)
        assert len(clock.timed) == 3 * 3 * 7 + 3 * 3


def test_the_target_is_launched_as_the_table_has_it(recorders: dict[str, Recorder]) -> None:
    with trying({LAUNCH._replace(kernel=kernel): FOUND for kernel in get_args(KernelName)}):
        gss_soft_targets(torch.zeros(1, 4, 4, 5), BRATS_2018, backend="triton")
    recorders["target"].check(TABLE.backward)
