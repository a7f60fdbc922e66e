"""What the benchmarks say of a call, on the CPU."""

from __future__ import annotations

import pytest
import torch

from benchmarks.measuring import Work, memory_figures, part_figures, time_figures
from benchmarks.results_table import Result, ratios, tables
from benchmarks.steps import LossStep

CPU = torch.device("cpu")
NOTHING = Work(samples=None, voxels=None, share_of_copy=True, steps=False)


def test_step_goes_through_its_inputs_in_turn() -> None:
    seen: list[float] = []

    def loss(leaf: torch.Tensor) -> torch.Tensor:
        seen.append(leaf[0].item())
        return leaf.square().sum()

    step = LossStep(loss, [torch.full((4,), 1.0), torch.full((4,), 2.0)])
    for _ in range(3):
        step()
    assert seen == [1, 2, 1]


def test_floor_reads_in_both_passes_and_writes_the_gradient() -> None:
    step = LossStep(torch.sum, [torch.zeros(100)], label_bytes=7)
    assert step.floor == (407, 807)
    assert step.gradient_bytes == 400


def test_passes_are_timed_by_themselves() -> None:
    figures = time_figures(LossStep(torch.sum, [torch.zeros(10)]), NOTHING, CPU, wall=0.5)
    assert figures.keys() == {"wall_ms", "forward_ms", "backward_ms"}
    assert figures["wall_ms"] == 500


def test_rates_per_sample_and_voxel() -> None:
    figures = time_figures(lambda: None, NOTHING._replace(samples=8, voxels=2000), CPU, wall=0.5)
    assert figures["samples_per_s"] == pytest.approx(16)
    assert figures["ns_per_voxel"] == pytest.approx(250_000)


def test_rates_of_steps() -> None:
    figures = time_figures(lambda: None, NOTHING._replace(samples=8, steps=True), CPU, wall=0.5)
    assert figures["steps_per_s"] == pytest.approx(2)
    assert figures["samples_per_s"] == pytest.approx(16)


def test_parts_are_shares_of_the_whole_by_the_same_clock() -> None:
    calls: list[str] = []
    parts = {"losses": lambda: calls.append("losses"), "augmentation": lambda: calls.append("augmentation")}
    figures = part_figures(parts, CPU, {"wall_ms": 4.0})
    assert figures.keys() == {
        "losses_ms",
        "losses_percent_of_step",
        "augmentation_ms",
        "augmentation_percent_of_step",
    }
    for part in parts:
        assert figures[f"{part}_percent_of_step"] == pytest.approx(figures[f"{part}_ms"] * 25)
        assert part in calls


def test_memory_beyond_the_gradient() -> None:
    """`(2 * x).square().sum()` needs two tensors of the size of `x` at a time."""
    step = LossStep(lambda leaf: (2 * leaf).square().sum(), [torch.ones(1_000_000)])
    step()
    figures = memory_figures(step, CPU)
    assert figures["peak_extra_mb"] >= 8
    assert figures["beyond_gradient_mb"] == pytest.approx(figures["peak_extra_mb"] - 4)


def test_ratios_compare_the_gpu_times_of_a_group() -> None:
    results = [
        Result("group", "eager", {"wall_ms": 9000, "gpu_ms": 6000}),
        Result("group", "torch.compile", {"wall_ms": 8000, "gpu_ms": 4000}),
        Result("other", "eager", {"wall_ms": 1}),
    ]
    fused = Result("group", "triton", {"wall_ms": 3000, "gpu_ms": 2000})
    assert ratios([*results, fused], fused) == {"times_faster_than_eager": 3, "times_faster_than_torch_compile": 2}
    assert ratios(results, results[0]) == {"times_faster_than_torch_compile": pytest.approx(2 / 3)}


def test_table_of_results_with_different_figures() -> None:
    lines = tables(
        [Result("group", "one", {"wall_ms": 1234.0}), Result("group", "two", {"wall_ms": 5, "gpu_ms": 0.25})]
    )
    assert [line.split() for line in lines] == [
        ["group"],
        ["wall", "ms", "gpu", "ms"],
        ["one", "1234"],
        ["two", "5", "0.25"],
        [],
    ]
