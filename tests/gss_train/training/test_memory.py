from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from benchmarks.memory import peak_extra_bytes
from benchmarks.network_steps import StepSettings, build, training_step
from gss_train.common.errors import UserError
from gss_train.data import MODALITY_SUBSETS
from gss_train.inference import SlidingWindow, segment_subsets
from gss_train.models import build_network
from gss_train.models.registry import NETWORKS
from gss_train.training.memory import (
    EVALUATED,
    MEASURED,
    StepSize,
    find_remedies,
    full_memory_explained,
    least_bytes,
)

RFNET = StepSize("rfnet", 16, 9_000_000, (80,) * 3, 2, activation_checkpointing=False, in_16_bits=False)
PUBLISHED = [
    replace(RFNET, volume=(146, 179, 146), on_card=True),
    StepSize("mmformer", 16, 35_000_000, (128,) * 3, 8, activation_checkpointing=False, in_16_bits=False),
    StepSize("robustseg", 16, 38_000_000, (80,) * 3, 1, activation_checkpointing=False, in_16_bits=False),
    StepSize("uhved", 8, 1_300_000, (112, 64, 80), 6, activation_checkpointing=True, in_16_bits=False, passes=2),
]


@pytest.mark.parametrize(
    ("network", "edge", "crops", "width"), [("rfnet", 24, 2, 4), ("uhved", 16, 2, 4), ("robustseg", 16, 1, 4)]
)
@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_a_step_takes_about_what_is_expected(
    network: str, edge: int, crops: int, width: int, activation_checkpointing: bool
) -> None:
    """At no more than half of the published width, where nothing was measured for the table."""
    variant = "lean, checkpointing" if activation_checkpointing else "lean"
    settings = StepSettings(network, variant, edge, width, categories=4, batch=crops)
    parameters = sum(parameter.numel() for parameter in build(settings).parameters())
    step = training_step(settings, torch.device("cpu"))
    step()
    measured = peak_extra_bytes(step, torch.device("cpu")) + 20 * parameters
    size = StepSize(network, width, parameters, (edge,) * 3, crops, activation_checkpointing, in_16_bits=False)
    assert size.step_bytes == pytest.approx(measured, rel=0.35)


def test_a_whole_subject_takes_about_what_is_expected() -> None:
    """Without the vote, whose sums are the rest."""
    network = build_network("uhved", 4, crop_size=16, width=4).eval()
    image = torch.randn(4, 16, 24, 32)

    def segment() -> None:
        segment_subsets(network, image, SlidingWindow((16,) * 3), MODALITY_SUBSETS)

    segment()
    measured = peak_extra_bytes(segment, torch.device("cpu")) + 4 * image.numel()
    size = StepSize("uhved", 4, 0, (16,) * 3, 1, activation_checkpointing=False, in_16_bits=False)
    whole = replace(size, volume=(16, 24, 32)).evaluation_bytes
    votes = 6 * 4 * 4 * image[0].numel()
    assert whole - votes == pytest.approx(measured, rel=0.25)


def test_every_network_has_been_measured_in_every_way() -> None:
    expected = {(name, checkpointing, short) for name in NETWORKS for checkpointing in (0, 1) for short in (0, 1)}
    assert set(MEASURED) == expected
    assert set(EVALUATED) == expected


@pytest.mark.parametrize("size", PUBLISHED, ids=lambda size: size.network)
@pytest.mark.parametrize("share", [0.9, 0.5, 0.3, 0.15])
def test_every_remedy_fits_and_needs_all_of_its_settings(size: StepSize, share: float) -> None:
    """Where there is none, not even the least of all settings fits."""
    room = share * size.expected_bytes
    remedies = find_remedies(size, room)
    assert len(remedies) <= 3
    assert bool(remedies) == (least_bytes(size) <= room)
    for remedy in remedies:
        assert _applied(size, remedy.flags).expected_bytes <= room
        for fewer in itertools.combinations(remedy.flags, len(remedy.flags) - 1):
            assert _applied(size, fewer).expected_bytes > room


def _applied(size: StepSize, flags: tuple[str, ...]) -> StepSize:
    """As the flags say, by another way than that of the remedies."""
    crops = size.crops * size.passes
    for flag in flags:
        name, *values = flag.split()
        if name == "--activation-checkpointing":
            size = replace(size, activation_checkpointing=True)
        elif name == "--precision":
            size = replace(size, in_16_bits=True)
        elif name == "--accumulate":
            assert crops % int(values[0]) == 0
            size = replace(size, crops=crops // int(values[0]))
        else:
            assert name == "--crop-size"
            x, y, z = map(int, values * 3 if len(values) == 1 else values)
            kind = NETWORKS[size.network]
            assert all(length % kind.stride == 0 and length >= kind.least for length in (x, y, z))
            size = replace(size, crop=(x, y, z))
    return size


def test_what_changes_least_goes_first() -> None:
    flags = [remedy.flags for remedy in find_remedies(RFNET, 0.9 * RFNET.expected_bytes)]
    assert flags == [("--activation-checkpointing",), ("--precision bfloat16",), ("--accumulate 2",)]


def test_no_smaller_crop_is_named_where_more_would_do() -> None:
    tight = find_remedies(RFNET, least_bytes(replace(RFNET, crop=(72,) * 3)))
    assert tight
    for remedy in tight:
        assert remedy.flags[-1].startswith("--crop-size")
        x, y, z = remedy.size.crop
        larger = replace(remedy.size, crop=(x + 8, y + 8, z + 8))
        assert larger.expected_bytes > least_bytes(replace(RFNET, crop=(72,) * 3)) >= remedy.size.expected_bytes


@pytest.mark.parametrize(("batch_dice", "count"), [(True, 1), (False, 0)])
def test_it_is_said_where_something_else_would_be_learnt(batch_dice: bool, count: int) -> None:
    last = find_remedies(replace(RFNET, batch_dice=batch_dice), 0.9 * RFNET.expected_bytes)[-1]
    assert str(last).startswith("--accumulate 2: ")
    assert str(last).count("a Dice of its own") == count


def test_settings_that_are_on_already_are_not_named() -> None:
    size = replace(RFNET, crops=1, activation_checkpointing=True)
    said = " ".join(str(remedy) for remedy in find_remedies(size, 0.9 * size.expected_bytes))
    assert "--activation-checkpointing" not in said
    assert "--accumulate" not in said
    assert "--precision bfloat16" in said


def test_a_full_memory_names_settings_that_take_less() -> None:
    with pytest.raises(UserError, match=r"memory is full") as caught, full_memory_explained(RFNET):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand much more")
    said = str(caught.value)
    assert "--activation-checkpointing: " in said
    assert "Tried to allocate 2.00 GiB" in said
    assert "\n" not in said


def test_a_full_memory_that_nothing_takes_less_of_names_nothing() -> None:
    least = StepSize("rfnet", 16, 9, (NETWORKS["rfnet"].least,) * 3, 1, activation_checkpointing=True, in_16_bits=True)
    with pytest.raises(UserError, match="the least change first: none"), full_memory_explained(least):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_the_processors_allocator_is_understood_too() -> None:
    with pytest.raises(UserError, match="memory is full"), full_memory_explained(RFNET):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), full_memory_explained(RFNET):
        raise RuntimeError("shapes do not match")
