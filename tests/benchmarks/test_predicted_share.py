"""The arithmetic of predicted times, on made-up kernels and cards."""

from __future__ import annotations

import collections
import importlib.util
import sys
from dataclasses import replace

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip(f"Triton is not installed ({sys.platform})", allow_module_level=True)

from benchmarks.machine_code import Kernel
from benchmarks.predicted_share import Card, Launch, launch_of, predict
from benchmarks.sass import Counts, MachineCode
from gss_kernels.layout import Layout
from gss_kernels.triton.launch import Card as LaunchCard

CARD = Card(multiprocessors=10, clock=1e9, copy_bytes_per_second=1e12)
NOTHING = Counts(0, 0, 0, 0, 0, collections.Counter(), collections.Counter())
OUTSIDE = replace(NOTHING, instructions=50, stall_cycles=100)
LOOP = replace(NOTHING, instructions=100, stall_cycles=150, special_functions=2)
CODE = MachineCode(registers=64, spilled_bytes=0, loop=LOOP, outside=OUTSIDE, called=NOTHING)
LAUNCH = Launch(programs=20, turns=5, num_warps=8, resident=2, floor_bytes=1_000)


def test_instructions_take_a_cycle_each_of_a_scheduler() -> None:
    found = predict(CODE, LAUNCH, CARD)
    # Sixteen warps, four for each scheduler; five turns and the code outside.
    assert found.seconds == pytest.approx(4 * (5 * 100 + 50) / 1e9)
    assert found.limit == "instructions"
    assert found.share == pytest.approx(1e-9 / found.seconds)


def test_more_instructions_take_longer() -> None:
    times = [
        predict(replace(CODE, loop=replace(LOOP, instructions=number)), LAUNCH, CARD).seconds
        for number in (100, 110, 120)
    ]
    assert times[0] < times[1] < times[2]


def test_special_functions_take_eight_cycles_each() -> None:
    code = replace(CODE, loop=replace(LOOP, special_functions=50), outside=replace(OUTSIDE, special_functions=1))
    found = predict(code, LAUNCH, CARD)
    assert found.seconds == pytest.approx(4 * 8 * (5 * 50 + 1) / 1e9)
    assert found.limit == "special functions"


def test_few_warps_do_not_hide_their_stalls() -> None:
    found = predict(CODE, replace(LAUNCH, programs=10, num_warps=4, resident=1), CARD)
    assert found.seconds == pytest.approx((5 * 150 + 100) / 1e9)
    assert found.limit == "latency"


def test_spare_cycles_are_those_in_which_the_others_have_instructions() -> None:
    assert predict(CODE, LAUNCH, CARD).spare_cycles == 4 * 100 - 150
    assert predict(CODE, replace(LAUNCH, num_warps=2), CARD).spare_cycles == 100 - 150


def test_a_pass_that_memory_limits_has_the_share_of_a_copy() -> None:
    found = predict(CODE, replace(LAUNCH, floor_bytes=10**9), CARD)
    assert found.seconds == pytest.approx(1e-3)
    assert (found.share, found.limit) == (1.0, "memory")


def test_twice_the_waves_take_twice_as_long() -> None:
    one, two = (predict(CODE, replace(LAUNCH, programs=programs), CARD) for programs in (20, 40))
    assert (one.waves, two.waves) == (1, 2)
    assert two.seconds == pytest.approx(2 * one.seconds)


def test_a_wave_that_is_not_full_counts_as_one() -> None:
    assert predict(CODE, replace(LAUNCH, programs=21), CARD).waves == 2


def test_programs_spread_over_the_multiprocessors() -> None:
    few = predict(CODE, replace(LAUNCH, programs=10), CARD)
    assert few.waves == 1
    assert few.seconds == pytest.approx(2 * (5 * 100 + 50) / 1e9)


@pytest.mark.parametrize("name", ["programs", "turns", "num_warps", "resident"])
def test_a_launch_of_nothing_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="expected at least one program"):
        predict(CODE, replace(LAUNCH, **{name: 0}), CARD)


@pytest.mark.parametrize("voxels", [300, 10_000])
@pytest.mark.parametrize("supervised", [False, True])
def test_launches_are_those_of_the_library(supervised: bool, voxels: int) -> None:
    samples = 2
    layout = Layout((samples, 4, 4), voxels, (4 * voxels, voxels, 1))
    card, launching = replace(CARD, multiprocessors=1), LaunchCard(1, 32, ptx=True)
    forward, backward = (Kernel(f"gss_{name}_kernel", supervised=supervised) for name in ("forward", "backward"))
    walking = launching.programs(layout, forward.configuration)
    blocks = launching.blocks(layout, forward.configuration)
    own = launch_of(forward, resident=2, samples=samples, voxels=voxels, card=card)
    assert (own.programs, own.turns, own.num_warps) == (samples * walking, -(-blocks // walking), 4)
    own = launch_of(backward, resident=2, samples=samples, voxels=voxels, card=card)
    assert (own.programs, own.turns) == (samples * launching.blocks(layout, backward.configuration), 1)


def test_what_must_move_is_logits_gradients_and_labels() -> None:
    logits = 2 * 4 * 5 * 1000 * 2
    for supervised, labels in ((False, 0), (True, 2 * 1000)):
        forward, backward = (
            launch_of(Kernel(f"gss_{name}_kernel", 4, 5, "bf16", supervised=supervised), 2, 2, 1000)
            for name in ("forward", "backward")
        )
        assert forward.floor_bytes == logits + labels
        assert backward.floor_bytes == 2 * logits + labels


def test_other_kernels_have_no_prediction() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        launch_of(Kernel("gss_finish_kernel"), 1, 1, 1000)
