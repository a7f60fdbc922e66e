from __future__ import annotations

import torch

from gss_train.training.draws import mask_seed, network_seed, sample_generator


def test_every_sample_of_every_step_has_random_numbers_of_its_own() -> None:
    drawn = {
        float(torch.rand((), generator=sample_generator(seed, step, sample)))
        for seed in range(3)
        for step in range(10)
        for sample in range(4)
    }
    assert len(drawn) == 120


def test_the_same_numbers_come_again() -> None:
    first, again = (torch.rand(5, generator=sample_generator(1, 2, 3)) for _ in range(2))
    assert torch.equal(first, again)


def test_seeds_differ_by_what_they_are_for_and_fit_a_signed_word() -> None:
    seeds = [mask_seed(seed, step) for seed in range(3) for step in range(10)]
    seeds += [network_seed(seed, step, sample) for seed in range(3) for step in range(10) for sample in range(2)]
    assert len(set(seeds)) == 90
    assert all(0 <= seed < 2**63 for seed in seeds)
